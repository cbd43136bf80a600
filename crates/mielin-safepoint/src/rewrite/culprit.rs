//! Names the function for which a module that is refused as a whole needs what is refused.

use alloc::collections::BTreeMap;
use alloc::string::String;

use wasmparser::{KnownCustom, Name, Parser, Payload, TypeRef};

use super::program::{allowed, proposal};
use crate::{Feature, FunctionName, InstrumentError};

/// The same error, with the first function that uses a refused proposal if one does: a type or a
/// tag alone does not say who needs it.
pub(super) fn name(wasm: &[u8], error: InstrumentError) -> InstrumentError {
    match error {
        InstrumentError::Unsupported {
            function: None,
            feature:
                Feature::Proposal(_) | Feature::Definition(_) | Feature::Type | Feature::MemoryKind(_),
        } => find(wasm).unwrap_or(error),
        other => other,
    }
}

fn find(wasm: &[u8]) -> Option<InstrumentError> {
    let mut next = 0;
    let mut found = None;
    let mut names = BTreeMap::new();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.ok()? {
            Payload::ImportSection(section) => {
                let imports = section.into_imports().map_while(Result::ok);
                let functions = imports.filter(|import| matches!(import.ty, TypeRef::Func(_)));
                next = functions.count() as u32;
            }
            Payload::CodeSectionEntry(body) => {
                let operators = body.get_operators_reader().ok()?.into_iter();
                let mut refused = operators
                    .map_while(Result::ok)
                    .filter(|operator| !allowed(operator));
                if let (None, Some(operator)) = (&found, refused.next()) {
                    found = Some((next, proposal(&operator)));
                }
                next += 1;
            }
            Payload::CustomSection(section) => {
                if let KnownCustom::Name(section) = section.as_known() {
                    for name in section.into_iter().map_while(Result::ok) {
                        if let Name::Function(functions) = name {
                            let functions = functions.into_iter().map_while(Result::ok);
                            names.extend(functions.map(|naming| (naming.index, naming.name)));
                        }
                    }
                }
            }
            _ => {}
        }
    }
    let (index, proposal) = found?;
    let name = names.get(&index).map(|name| String::from(*name));
    Some(InstrumentError::Unsupported {
        function: Some(FunctionName { index, name }),
        feature: Feature::Proposal(proposal),
    })
}
