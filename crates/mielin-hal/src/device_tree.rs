//! Flattened device trees: what firmware tells a kernel about its machine.
//!
//! Source: Devicetree Specification 0.4, chapters 2, 3 and 5. A tree comes from outside, so everything in it is checked
//! before it is used: nothing in here panics, whatever the bytes are.

use core::fmt;

use crate::riscv::Isa;

const MAGIC: u32 = 0xd00d_feed;
/// The version that reads like this one, since 2005.
const COMPATIBLE_VERSION: u32 = 17;
const HEADER_BYTES: usize = 40;

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// The longest name that is read. The specification has at most 31 (2.2.1, 2.2.4), and some go beyond.
const NAME_BYTES_MAX: usize = 255;

/// Where no `#address-cells` and `#size-cells` say otherwise (2.3.5).
const ADDRESS_CELLS: u32 = 2;
const SIZE_CELLS: u32 = 1;

/// Bytes that are no device tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceTreeError {
    /// They do not begin as a device tree does.
    NotATree,
    /// The tree is of a version that cannot be read like version 17.
    Version(u32),
    /// There are fewer bytes than the header says, or a block lies outside of them.
    Truncated,
    /// The structure block is not made as it should be.
    Malformed,
}

impl fmt::Display for DeviceTreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotATree => f.write_str("these bytes are no flattened device tree"),
            Self::Version(version) => write!(
                f,
                "a device tree of version {version}, which reads differently"
            ),
            Self::Truncated => f.write_str("the device tree is longer than its bytes"),
            Self::Malformed => f.write_str("the device tree's structure is damaged"),
        }
    }
}

impl core::error::Error for DeviceTreeError {}

/// A device tree in memory.
#[derive(Clone, Copy, Debug)]
pub struct DeviceTree<'a> {
    structure: &'a [u8],
    strings: &'a [u8],
}

impl<'a> DeviceTree<'a> {
    /// Reads the header, and checks that the structure is one from beginning to end. What follows the tree is ignored.
    ///
    /// # Errors
    /// [`DeviceTreeError`] says what is wrong with the bytes.
    pub fn new(bytes: &'a [u8]) -> Result<Self, DeviceTreeError> {
        let header = |index: usize| word(bytes, index * 4);
        if header(0) != Some(MAGIC) || bytes.len() < HEADER_BYTES {
            return Err(DeviceTreeError::NotATree);
        }
        let field = |index: usize| header(index).ok_or(DeviceTreeError::NotATree);
        let version = field(6)?;
        if version > COMPATIBLE_VERSION || field(5)? < COMPATIBLE_VERSION {
            return Err(DeviceTreeError::Version(version));
        }
        let tree = bytes
            .get(..field(1)? as usize)
            .ok_or(DeviceTreeError::Truncated)?;
        let block = |offset: u32, len: u32| {
            let end = (offset as usize).checked_add(len as usize)?;
            tree.get(offset as usize..end)
        };
        let structure = block(field(2)?, field(9)?).ok_or(DeviceTreeError::Truncated)?;
        let strings = block(field(3)?, field(8)?).ok_or(DeviceTreeError::Truncated)?;
        let tree = Self { structure, strings };
        tree.check()?;
        Ok(tree)
    }

    /// One root, every node closed, every property within its node.
    fn check(self) -> Result<(), DeviceTreeError> {
        let mut tokens = self.tokens(0);
        let mut depth: u32 = 0;
        let mut roots: u32 = 0;
        loop {
            match tokens.next().ok_or(DeviceTreeError::Malformed)? {
                Token::Begin(_) => {
                    roots += u32::from(depth == 0);
                    depth = depth.checked_add(1).ok_or(DeviceTreeError::Malformed)?;
                }
                Token::Property(..) if depth > 0 => {}
                Token::End if depth > 0 => depth -= 1,
                Token::Finish if depth == 0 && roots == 1 => return Ok(()),
                _ => return Err(DeviceTreeError::Malformed),
            }
        }
    }

    /// The root node.
    #[must_use]
    pub fn root(self) -> Node<'a> {
        let mut tokens = self.tokens(0);
        // It was checked that there is one.
        let name = match tokens.next() {
            Some(Token::Begin(name)) => name,
            _ => "",
        };
        Node {
            tree: self,
            name,
            inside: tokens.at,
        }
    }

    /// The node of this path, such as `/cpus/cpu@0`. The part behind `@` may be left out; then the first one is found.
    #[must_use]
    pub fn find(self, path: &str) -> Option<Node<'a>> {
        let parts = path.split('/').filter(|part| !part.is_empty());
        parts.into_iter().try_fold(self.root(), |node, part| {
            node.children()
                .find(|child| child.name == part || child.name.split('@').next() == Some(part))
        })
    }

    /// The processors.
    pub fn processors(self) -> impl Iterator<Item = Node<'a>> {
        let cpus = self.find("/cpus");
        let children = cpus.into_iter().flat_map(Node::children);
        children.filter(|node| node.text("device_type") == Some("cpu"))
    }

    /// Address and length of each stretch of memory.
    pub fn memory(self) -> impl Iterator<Item = (u64, u64)> {
        let root = self.root();
        let is_memory = |node: &Node<'_>| node.text("device_type") == Some("memory");
        root.children()
            .filter(is_memory)
            .flat_map(move |node| node.regions(&root))
    }

    fn tokens(self, at: usize) -> Tokens<'a> {
        Tokens { tree: self, at }
    }
}

/// A node of a device tree.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    tree: DeviceTree<'a>,
    name: &'a str,
    /// Where its properties begin.
    inside: usize,
}

impl<'a> Node<'a> {
    /// Its name, with its address behind `@` if it has one.
    #[must_use]
    pub const fn name(self) -> &'a str {
        self.name
    }

    /// Its properties, by name and value.
    pub fn properties(self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        // Properties come before children (5.4.2).
        self.tree
            .tokens(self.inside)
            .map_while(|token| match token {
                Token::Property(name, value) => Some((name, value)),
                _ => None,
            })
    }

    /// The value of a property.
    #[must_use]
    pub fn property(self, name: &str) -> Option<&'a [u8]> {
        self.properties()
            .find_map(|(known, value)| (known == name).then_some(value))
    }

    /// A property that is a number.
    #[must_use]
    pub fn number(self, name: &str) -> Option<u32> {
        let value = self.property(name)?;
        word(value, 0).filter(|_| value.len() == 4)
    }

    /// A property that is one text, or the first of several.
    #[must_use]
    pub fn text(self, name: &str) -> Option<&'a str> {
        self.texts(name).next()
    }

    /// A property that is a list of texts.
    pub fn texts(self, name: &str) -> impl Iterator<Item = &'a str> {
        let value = self
            .property(name)
            .and_then(|value| value.strip_suffix(&[0]));
        let texts = value.map(|value| value.split(|byte| *byte == 0));
        texts
            .into_iter()
            .flatten()
            .filter_map(|text| str::from_utf8(text).ok())
    }

    /// Its children.
    pub fn children(self) -> impl Iterator<Item = Node<'a>> {
        let mut tokens = self.tree.tokens(self.inside);
        let mut depth: u32 = 0;
        core::iter::from_fn(move || {
            loop {
                match tokens.next()? {
                    Token::Begin(name) => {
                        depth += 1;
                        if depth == 1 {
                            return Some(Node {
                                tree: self.tree,
                                name,
                                inside: tokens.at,
                            });
                        }
                    }
                    Token::End => depth = depth.checked_sub(1)?,
                    Token::Property(..) => {}
                    Token::Finish => return None,
                }
            }
        })
    }

    /// Address and length of each entry of its `reg`, in the cells that its parent gives them.
    pub fn regions(self, parent: &Node<'a>) -> impl Iterator<Item = (u64, u64)> + use<'a> {
        let address = parent.number("#address-cells").unwrap_or(ADDRESS_CELLS) as usize;
        let size = parent.number("#size-cells").unwrap_or(SIZE_CELLS) as usize;
        // Numbers have one or two words.
        let fits = (1..=2).contains(&address) && (1..=2).contains(&size);
        let reg = self.property("reg").filter(|_| fits).unwrap_or(&[]);
        let entry = 4 * (address + size);
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
        };
        reg.chunks_exact(entry.max(1)).map(move |entry| {
            let (address, size) = entry.split_at(4 * address);
            (number(address), number(size))
        })
    }

    /// What a RISC-V processor says of itself: `riscv,isa-base` with `riscv,isa-extensions`, or the older `riscv,isa`.
    #[must_use]
    pub fn isa(self) -> Option<Isa> {
        if let Some(mut isa) = self.text("riscv,isa-base").and_then(Isa::parse) {
            self.texts("riscv,isa-extensions")
                .for_each(|extension| isa.add(extension));
            return Some(isa);
        }
        Isa::parse(self.text("riscv,isa")?)
    }
}

enum Token<'a> {
    Begin(&'a str),
    End,
    Property(&'a str, &'a [u8]),
    Finish,
}

/// The structure block from some place on. Ends where it is damaged.
struct Tokens<'a> {
    tree: DeviceTree<'a>,
    at: usize,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let structure = self.tree.structure;
        loop {
            let token = word(structure, self.at)?;
            self.at += 4;
            match token {
                BEGIN_NODE => {
                    let name = text(structure, self.at)?;
                    self.skip(name.len() + 1);
                    return Some(Token::Begin(name));
                }
                END_NODE => return Some(Token::End),
                PROPERTY => {
                    let len = word(structure, self.at)? as usize;
                    let name = word(structure, self.at + 4)? as usize;
                    self.at += 8;
                    let value = structure.get(self.at..self.at.checked_add(len)?)?;
                    self.skip(len);
                    return Some(Token::Property(text(self.tree.strings, name)?, value));
                }
                NOP => {}
                END => return Some(Token::Finish),
                _ => return None,
            }
        }
    }
}

impl Tokens<'_> {
    /// Goes on behind so many bytes, and what is added to them to make words.
    fn skip(&mut self, bytes: usize) {
        self.at += bytes.next_multiple_of(4);
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(word.try_into().ok()?))
}

/// The name that begins here and ends before a zero.
fn text(bytes: &[u8], at: usize) -> Option<&str> {
    let rest = bytes.get(at..)?;
    let len = rest
        .iter()
        .take(NAME_BYTES_MAX + 1)
        .position(|byte| *byte == 0)?;
    str::from_utf8(&rest[..len]).ok()
}

#[cfg(test)]
mod tests;
