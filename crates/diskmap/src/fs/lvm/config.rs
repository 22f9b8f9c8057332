//! The text in which LVM2 writes its metadata: named sections, numbers, strings, lists.
//!
//! Owns: the grammar, and limits on depth and size. Does not own: what the names mean.
//!
//! Strings are kept as they stand, with their escapes: no name that decides anything has
//! characters that need one.

/// Sections inside sections; LVM2 has four.
const MAX_DEPTH: u32 = 8;
/// Entries and list items of a text.
const MAX_ITEMS: usize = 400_000;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    Number(i64),
    Text(&'a [u8]),
    List(Vec<Value<'a>>),
    Section(Section<'a>),
    /// A number with a fraction, which nothing here needs.
    Other,
}

/// Named values in the order of the text.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Section<'a>(pub Vec<(&'a [u8], Value<'a>)>);

impl<'a> Section<'a> {
    /// The value of that name; `None` too if there are several.
    pub fn get(&self, name: &str) -> Option<&Value<'a>> {
        let mut all = self.0.iter().filter(|(key, _)| *key == name.as_bytes());
        all.next()
            .filter(|_| all.next().is_none())
            .map(|(_, value)| value)
    }

    /// Whether there is a value of that name.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| *key == name.as_bytes())
    }

    /// A number that is not negative.
    pub fn number(&self, name: &str) -> Option<u64> {
        match self.get(name)? {
            Value::Number(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    pub fn text(&self, name: &str) -> Option<&'a [u8]> {
        match self.get(name)? {
            Value::Text(value) => Some(value),
            _ => None,
        }
    }

    pub fn list(&self, name: &str) -> Option<&[Value<'a>]> {
        match self.get(name)? {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    pub fn section(&self, name: &str) -> Option<&Section<'a>> {
        match self.get(name)? {
            Value::Section(section) => Some(section),
            _ => None,
        }
    }

    /// All sections with their names.
    pub fn sections(&self) -> impl Iterator<Item = (&'a [u8], &Section<'a>)> {
        self.0.iter().filter_map(|(name, value)| match value {
            Value::Section(section) => Some((*name, section)),
            _ => None,
        })
    }
}

/// Reads a whole text; `None` if it breaks the grammar or a limit.
pub(super) fn parse(text: &[u8]) -> Option<Section<'_>> {
    // A NUL ends it.
    let end = text.iter().position(|&b| b == 0).unwrap_or(text.len());
    let mut parser = Parser {
        rest: text.get(..end)?,
        items: 0,
    };
    let section = parser.section(0)?;
    parser.rest.is_empty().then_some(section)
}

struct Parser<'a> {
    rest: &'a [u8],
    items: usize,
}

impl<'a> Parser<'a> {
    /// Entries up to the end or to a closing brace, which is left.
    fn section(&mut self, depth: u32) -> Option<Section<'a>> {
        let mut found = Section::default();
        loop {
            self.skip();
            if matches!(self.rest.first(), None | Some(b'}')) {
                return Some(found);
            }
            self.count()?;
            let name = self.word(is_name)?;
            self.skip();
            let value = if self.eat(b'{') {
                if depth >= MAX_DEPTH {
                    return None;
                }
                let section = self.section(depth + 1)?;
                self.expect(b'}')?;
                Value::Section(section)
            } else {
                self.expect(b'=')?;
                self.skip();
                if self.eat(b'[') {
                    self.list()?
                } else {
                    self.scalar()?
                }
            };
            found.0.push((name, value));
        }
    }

    /// Items behind an opening bracket, with the closing one.
    fn list(&mut self) -> Option<Value<'a>> {
        let mut items = Vec::new();
        self.skip();
        while !self.eat(b']') {
            self.count()?;
            items.push(self.scalar()?);
            self.skip();
            if self.eat(b',') {
                self.skip();
            } else if self.rest.first() != Some(&b']') {
                return None;
            }
        }
        Some(Value::List(items))
    }

    fn scalar(&mut self) -> Option<Value<'a>> {
        match self.rest.first()? {
            b'"' => self.string().map(Value::Text),
            b'-' | b'+' | b'0'..=b'9' => {
                let word = self.word(|b| b.is_ascii_digit() || b"+-.eE".contains(&b))?;
                let word = std::str::from_utf8(word).ok()?;
                match word.parse() {
                    Ok(number) => Some(Value::Number(number)),
                    Err(_) => word.parse::<f64>().ok().map(|_| Value::Other),
                }
            }
            _ => None,
        }
    }

    /// What is between quotes; a backslash guards the character behind it.
    fn string(&mut self) -> Option<&'a [u8]> {
        let body = self.rest.get(1..)?;
        let mut at = 0;
        loop {
            match body.get(at)? {
                b'"' => break,
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        self.rest = body.get(at + 1..)?;
        body.get(..at)
    }

    /// The longest run of accepted bytes, which is not empty.
    fn word(&mut self, accept: impl Fn(u8) -> bool) -> Option<&'a [u8]> {
        let len = self
            .rest
            .iter()
            .position(|&b| !accept(b))
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(len);
        self.rest = rest;
        (!word.is_empty()).then_some(word)
    }

    /// White space and comments.
    fn skip(&mut self) {
        loop {
            match self.rest.first() {
                Some(b'#') => {
                    let len = self
                        .rest
                        .iter()
                        .position(|&b| b == b'\n')
                        .unwrap_or(self.rest.len());
                    self.rest = &self.rest[len..];
                }
                Some(b) if b.is_ascii_whitespace() => self.rest = &self.rest[1..],
                _ => return,
            }
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.rest.first() == Some(&byte);
        if found {
            self.rest = &self.rest[1..];
        }
        found
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.skip();
        self.eat(byte).then_some(())
    }

    fn count(&mut self) -> Option<()> {
        self.items += 1;
        (self.items <= MAX_ITEMS).then_some(())
    }
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-.+/".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::{MAX_DEPTH, MAX_ITEMS, Value, parse};

    #[test]
    fn sections_numbers_strings_lists_and_comments() {
        let text = b"vg-0 {\n# note\nseqno = 3\tname=\"a \\\"b\\\\\"\n lv_1.x {}\n\
            l = [ \"pv0\", 0,\n\"pv1\", -5 ] e=[] f = 1.5\n}\n# end\0junk {";
        let root = parse(text).unwrap();
        let group = root.section("vg-0").unwrap();
        assert_eq!(group.number("seqno"), Some(3));
        assert_eq!(group.text("name"), Some(&b"a \\\"b\\\\"[..]));
        assert_eq!(group.list("e"), Some(&[][..]));
        assert_eq!(group.get("f"), Some(&Value::Other));
        let pairs = [
            Value::Text(b"pv0"),
            Value::Number(0),
            Value::Text(b"pv1"),
            Value::Number(-5),
        ];
        assert_eq!(group.list("l"), Some(&pairs[..]));
        assert_eq!(group.sections().count(), 1);
        assert!(group.has("lv_1.x") && !group.has("lv_1"));
    }

    #[test]
    fn a_name_that_stands_twice_has_no_value() {
        let root = parse(b"a = 1 b = 2 a = 1").unwrap();
        assert_eq!((root.number("a"), root.number("b")), (None, Some(2)));
        assert!(root.has("a"));
    }

    #[test]
    fn broken_texts_are_refused() {
        let broken = [
            "a",
            "a =",
            "a = {",
            "a {",
            "a { b = 1",
            "}",
            "a = 1 }",
            "= 1",
            "a = \"x",
            "a = \"x\\",
            "a = [1",
            "a = [1 2]",
            "a = [,]",
            "a = [[1]]",
            "a = b",
            "a = 1-2",
            "a = --",
            "{ }",
        ];
        for text in broken {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn depth_and_size_are_bounded() {
        let nested = |depth: u32| "a{".repeat(depth as usize) + &"}".repeat(depth as usize);
        assert!(parse(nested(MAX_DEPTH).as_bytes()).is_some());
        assert!(parse(nested(MAX_DEPTH + 1).as_bytes()).is_none());
        assert!(parse("a{".repeat(1 << 20).as_bytes()).is_none());
        assert!(parse("a=1 ".repeat(MAX_ITEMS).as_bytes()).is_some());
        assert!(parse("a=1 ".repeat(MAX_ITEMS + 1).as_bytes()).is_none());
        let list = format!("a=[{}]", "1,".repeat(MAX_ITEMS));
        assert!(parse(list.as_bytes()).is_none());
    }
}
