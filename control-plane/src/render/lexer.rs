//! The code inside a template's text, as tokens.
//!
//! Cuts a source exactly as minijinja does. Two questions are asked of the tokens before minijinja sees the source: may it be
//! compiled at all ([`super::bounds`]), and which names does it hold ([`super::reads`]).

/// One `{{ ... }}` or `{% ... %}`.
#[derive(Debug, Clone, PartialEq)]
pub struct Code {
    /// Whether it is a statement, `{% ... %}`.
    pub statement: bool,
    /// What is inside.
    pub tokens: Vec<Token>,
}

/// A token and the line that it begins on, counted from 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// What it is.
    pub kind: TokenKind,
    /// Its line.
    pub line: usize,
}

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub enum TokenKind {
    /// A name or a keyword.
    Word(String),
    /// A text literal, escapes undone; a character given by its number reads as U+FFFD.
    Text(String),
    /// A whole number; one too large is the largest.
    Int(u128),
    /// A number with a fraction or an exponent.
    Float(f64),
    /// An operator, a bracket or punctuation.
    Sign(&'static str),
}

/// Why a source cannot be cut into tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct LexError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

/// Two-character signs before one-character ones, so that the longest wins.
const SIGNS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "*", "/", "%", ".", ",", ":", "~", "|", "=", ">", "<", "(", ")", "[",
    "]", "{", "}", "!",
];

impl Token {
    /// Whether the token is this sign.
    #[must_use]
    pub fn is_sign(&self, sign: &str) -> bool {
        matches!(self.kind, TokenKind::Sign(found) if found == sign)
    }

    /// Whether the token is this word.
    #[must_use]
    pub fn is_word(&self, word: &str) -> bool {
        self.word() == Some(word)
    }

    /// Returns the word, if the token is one.
    #[must_use]
    pub fn word(&self) -> Option<&str> {
        match &self.kind {
            TokenKind::Word(word) => Some(word),
            _ => None,
        }
    }
}

/// Returns the code of a template's source, in order.
pub fn code(source: &str) -> Result<Vec<Code>, LexError> {
    let mut cursor = Cursor { source, at: 0, line: 1 };
    let mut found = Vec::new();
    while let Some(start) = next_marker(cursor.rest()) {
        cursor.skip(start);
        let marker = cursor.rest().as_bytes()[1];
        if marker == b'#' {
            let end = cursor.rest()[2..].find("#}").ok_or_else(|| cursor.fail("a comment is not closed"))?;
            cursor.skip(end + 4);
        } else if marker == b'%' && basic_tag(&cursor.rest()[inside(cursor.rest())..], "raw", false).is_some() {
            cursor.skip_raw()?;
        } else {
            let statement = marker == b'%';
            cursor.skip(inside(cursor.rest()));
            found.push(Code { statement, tokens: cursor.tokens(Some(if statement { "%}" } else { "}}" }))? });
        }
    }
    Ok(found)
}

/// Returns the tokens of a lone expression.
pub fn expression(source: &str) -> Result<Vec<Token>, LexError> {
    Cursor { source, at: 0, line: 1 }.tokens(None)
}

fn next_marker(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    (0..bytes.len().saturating_sub(1)).find(|at| bytes[*at] == b'{' && matches!(bytes[*at + 1], b'{' | b'%' | b'#'))
}

/// Returns where the inside of a code begins, after its marker and a sign for white space.
fn inside(text: &str) -> usize {
    if matches!(text.as_bytes().get(2), Some(b'-' | b'+')) { 3 } else { 2 }
}

/// Returns the length of a tag that is only its name, such as `raw %}`, up to and with its end.
fn basic_tag(text: &str, name: &str, signed: bool) -> Option<usize> {
    let blank = |text: &'_ str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_whitespace()).len();
    let mut at = usize::from(signed && text.starts_with(['-', '+']));
    at += blank(&text[at..]);
    text[at..].starts_with(name).then_some(())?;
    at += name.len();
    at += blank(&text[at..]);
    at += usize::from(text[at..].starts_with(['-', '+']));
    text[at..].starts_with("%}").then_some(at + 2)
}

struct Cursor<'s> {
    source: &'s str,
    at: usize,
    line: usize,
}

impl<'s> Cursor<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    fn skip(&mut self, bytes: usize) -> &'s str {
        let skipped = &self.rest()[..bytes];
        self.line += skipped.bytes().filter(|byte| *byte == b'\n').count();
        self.at += bytes;
        skipped
    }

    fn fail(&self, message: impl Into<String>) -> LexError {
        LexError { line: self.line, message: message.into() }
    }

    fn skip_raw(&mut self) -> Result<(), LexError> {
        let start = inside(self.rest());
        let opening = basic_tag(&self.rest()[start..], "raw", false).unwrap_or(0);
        let mut at = start + opening;
        while let Some(block) = self.rest()[at..].find("{%") {
            at += block + 2;
            if let Some(closing) = basic_tag(&self.rest()[at..], "endraw", true) {
                self.skip(at + closing);
                return Ok(());
            }
        }
        Err(self.fail("a raw block is not closed"))
    }

    /// Reads up to and with `end`, or to the end of the source if there is none.
    fn tokens(&mut self, end: Option<&str>) -> Result<Vec<Token>, LexError> {
        let mut tokens: Vec<Token> = Vec::new();
        let mut open = 0_usize;
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_whitespace()).len();
            self.skip(blank);
            let rest = self.rest();
            let Some(first) = rest.chars().next() else {
                return if end.is_none() { Ok(tokens) } else { Err(self.fail("code is not closed")) };
            };
            if let (0, Some(end)) = (open, end) {
                let signed = usize::from(first == '-' || first == '+');
                if rest[signed..].starts_with(end) {
                    self.skip(signed + end.len());
                    return Ok(tokens);
                }
            }
            let line = self.line;
            let after_dot = tokens.last().is_some_and(|token| token.is_sign("."));
            let kind = match first {
                '"' | '\'' => self.text(first)?,
                '0'..='9' => self.number(after_dot),
                'a'..='z' | 'A'..='Z' | '_' => {
                    let length = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
                    TokenKind::Word(self.skip(length).to_owned())
                }
                _ => {
                    let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign));
                    let sign = sign.ok_or_else(|| self.fail(format!("unexpected character {first:?}")))?;
                    match *sign {
                        "(" | "[" | "{" => open += 1,
                        ")" | "]" | "}" => {
                            open = open.checked_sub(1).ok_or_else(|| self.fail(format!("unexpected {sign:?}")))?;
                        }
                        _ => {}
                    }
                    self.skip(sign.len());
                    TokenKind::Sign(sign)
                }
            };
            tokens.push(Token { kind, line });
        }
    }

    fn text(&mut self, quote: char) -> Result<TokenKind, LexError> {
        let mut escaped = false;
        let mut text = String::new();
        for (at, c) in self.rest().char_indices().skip(1) {
            match c {
                _ if escaped => {
                    escaped = false;
                    text.push(match c {
                        'n' => '\n',
                        't' => '\t',
                        'r' => '\r',
                        'b' => '\u{8}',
                        'f' => '\u{c}',
                        'u' | 'x' | '0'..='7' => char::REPLACEMENT_CHARACTER,
                        other => other,
                    });
                }
                '\\' => escaped = true,
                c if c == quote => {
                    self.skip(at + 1);
                    return Ok(TokenKind::Text(text));
                }
                c => text.push(c),
            }
        }
        Err(self.fail("a text is not closed"))
    }

    fn number(&mut self, after_dot: bool) -> TokenKind {
        let bytes = self.rest().as_bytes();
        let radix = match bytes.get(..2) {
            Some(b"0b" | b"0B") => 2,
            Some(b"0o" | b"0O") => 8,
            Some(b"0x" | b"0X") => 16,
            _ => 10,
        };
        let mut at = if radix == 10 { 0 } else { 2 };
        let (mut fraction, mut exponent, mut signed) = (false, false, false);
        while let Some(byte) = bytes.get(at) {
            let goes_on = match byte {
                b'0'..=b'9' | b'_' => true,
                b'a'..=b'f' | b'A'..=b'F' if radix == 16 => true,
                b'.' if radix == 10 && !fraction && !exponent && !after_dot => {
                    let power = matches!(bytes.get(at + 1), Some(b'e' | b'E'))
                        && matches!(bytes.get(at + 2), Some(b'+' | b'-' | b'0'..=b'9'));
                    let word = matches!(bytes.get(at + 1), Some(b'a'..=b'z' | b'A'..=b'Z' | b'_'));
                    fraction = power || !word;
                    fraction
                }
                b'e' | b'E' if radix == 10 && !exponent => {
                    exponent = true;
                    true
                }
                b'+' | b'-' if exponent && !signed && matches!(bytes[at - 1], b'e' | b'E') => {
                    signed = true;
                    true
                }
                _ => false,
            };
            if !goes_on {
                break;
            }
            at += 1;
        }
        let digits = self.skip(at).replace('_', "");
        if fraction || exponent {
            TokenKind::Float(digits.parse().unwrap_or(f64::INFINITY))
        } else {
            let digits = if radix == 10 { &digits } else { &digits[2..] };
            TokenKind::Int(u128::from_str_radix(digits, radix).unwrap_or(u128::MAX))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<String> {
        let code = code(source).expect("code");
        code.iter().flat_map(|code| &code.tokens).filter_map(|token| token.word().map(str::to_owned)).collect()
    }

    #[test]
    fn only_code_is_cut() {
        assert_eq!(words("a {{ b }} c {% if d %}{# e #}{{- f -}} { g }"), ["b", "if", "d", "f"]);
        assert_eq!(words("{% raw %}{{ a }}{% endraw %}{{ b }}{%- raw -%}{{ c }}{%- endraw +%}"), ["b"]);
        assert_eq!(words("{{ {'a': b} }}{{ '}}' ~ c }}"), ["b", "c"]);
        assert_eq!(words("{{ 1if a else 0x1f }}{{ b.0.c }}{{ 1.5e3 }}"), ["if", "a", "else", "b", "c"]);
    }

    #[test]
    fn texts_and_lines_are_read() {
        let code = code("x\n{{ \"a\\\"b\"\n~ 'c' }}").expect("code");
        assert_eq!(code[0].tokens[0], Token { kind: TokenKind::Text("a\"b".into()), line: 2 });
        assert_eq!(code[0].tokens[2].line, 3);
    }

    #[test]
    fn code_that_is_not_closed_is_refused_with_its_line() {
        for (source, line) in
            [("{{ a", 1), ("\n{# a", 2), ("{% raw %}", 1), ("{{ 'a }}", 1), ("{{ ) }}", 1), ("{{ é }}", 1)]
        {
            assert_eq!(code(source).expect_err(source).line, line, "{source}");
        }
    }
}
