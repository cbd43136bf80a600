//! Arguments and expected results of a test script.

use mielin_safepoint::GlobalValue;
use wasm_encoder::ValType;
use wast::core::{NanPattern, V128Pattern, WastArgCore, WastRetCore};
use wast::{WastArg, WastRet};

/// `Some(None)` is a null reference; `None` is what only a host could give.
pub(crate) fn argument(arg: &WastArg<'_>) -> Option<Option<GlobalValue>> {
    let WastArg::Core(arg) = arg else { return None };
    Some(Some(match arg {
        WastArgCore::I32(value) => GlobalValue::I32(*value),
        WastArgCore::I64(value) => GlobalValue::I64(*value),
        WastArgCore::F32(value) => GlobalValue::F32(value.bits),
        WastArgCore::F64(value) => GlobalValue::F64(value.bits),
        WastArgCore::V128(value) => GlobalValue::V128(u128::from_le_bytes(value.to_le_bytes())),
        WastArgCore::RefNull(_) => return Some(None),
        WastArgCore::RefExtern(_) | WastArgCore::RefHost(_) => return None,
    }))
}

/// Whether a result is what a script expects. Of a reference, `value` says whether it is null.
pub(crate) fn matches(expected: &WastRet<'_>, ty: ValType, value: GlobalValue) -> bool {
    match expected {
        WastRet::Core(expected) => core_matches(expected, ty, value),
        _ => false,
    }
}

fn core_matches(expected: &WastRetCore<'_>, ty: ValType, value: GlobalValue) -> bool {
    match (expected, value) {
        (WastRetCore::Either(list), value) => list.iter().any(|one| core_matches(one, ty, value)),
        (WastRetCore::RefNull(_), GlobalValue::I32(is_null)) => is_reference(ty) && is_null == 1,
        (WastRetCore::RefFunc(_), GlobalValue::I32(is_null)) => is_reference(ty) && is_null == 0,
        (WastRetCore::I32(expected), GlobalValue::I32(value)) => *expected == value,
        (WastRetCore::I64(expected), GlobalValue::I64(value)) => *expected == value,
        (WastRetCore::F32(expected), GlobalValue::F32(bits)) => f32_matches(expected, bits),
        (WastRetCore::F64(expected), GlobalValue::F64(bits)) => f64_matches(expected, bits),
        (WastRetCore::V128(expected), GlobalValue::V128(bits)) => v128_matches(expected, bits),
        _ => false,
    }
}

fn is_reference(ty: ValType) -> bool {
    matches!(ty, ValType::Ref(_))
}

fn f32_matches(expected: &NanPattern<wast::token::F32>, bits: u32) -> bool {
    match expected {
        NanPattern::CanonicalNan => bits & 0x7fff_ffff == 0x7fc0_0000,
        NanPattern::ArithmeticNan => bits & 0x7fc0_0000 == 0x7fc0_0000,
        NanPattern::Value(value) => value.bits == bits,
    }
}

fn f64_matches(expected: &NanPattern<wast::token::F64>, bits: u64) -> bool {
    match expected {
        NanPattern::CanonicalNan => bits & (u64::MAX >> 1) == 0x7ff8 << 48,
        NanPattern::ArithmeticNan => bits & (0x7ff8 << 48) == 0x7ff8 << 48,
        NanPattern::Value(value) => value.bits == bits,
    }
}

fn v128_matches(expected: &V128Pattern, bits: u128) -> bool {
    let lane = |index: usize, width: usize| bits >> (index * width);
    match expected {
        V128Pattern::I8x16(lanes) => (0..16).all(|at| lanes[at] == lane(at, 8) as i8),
        V128Pattern::I16x8(lanes) => (0..8).all(|at| lanes[at] == lane(at, 16) as i16),
        V128Pattern::I32x4(lanes) => (0..4).all(|at| lanes[at] == lane(at, 32) as i32),
        V128Pattern::I64x2(lanes) => (0..2).all(|at| lanes[at] == lane(at, 64) as i64),
        V128Pattern::F32x4(lanes) => (0..4).all(|at| f32_matches(&lanes[at], lane(at, 32) as u32)),
        V128Pattern::F64x2(lanes) => (0..2).all(|at| f64_matches(&lanes[at], lane(at, 64) as u64)),
    }
}
