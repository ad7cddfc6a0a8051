//! The grammar of selector expressions.

use titan_api::parse::unknown;

use crate::render::lexer::{Token, TokenKind};

/// Parts inside each other.
const DEPTH: usize = 32;

/// A part of an expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Name,
    Labels,
    Facts,
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Self>),
    Not(Box<Self>),
    All(Vec<Self>),
    Any(Vec<Self>),
    Compare(Box<Self>, Vec<(Operator, Self)>),
    Chain(Box<Self>, Vec<Step>),
}

/// How two parts are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
    In,
    NotIn,
}

/// What follows a part and works on it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    Key(String),
    Item(Node),
    Filter(Filter, Option<Node>),
    Test { test: Test, negated: bool, argument: Option<Node> },
}

/// The filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filter {
    Default,
    Float,
    Int,
    Length,
    Lower,
    String,
    Trim,
    Upper,
}

/// The tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    Boolean,
    Defined,
    EndingWith,
    False,
    Float,
    In,
    Integer,
    None,
    Number,
    StartingWith,
    String,
    True,
    Undefined,
}

const FILTERS: [(&str, Filter, bool); 8] = [
    ("default", Filter::Default, true),
    ("float", Filter::Float, false),
    ("int", Filter::Int, false),
    ("length", Filter::Length, false),
    ("lower", Filter::Lower, false),
    ("string", Filter::String, false),
    ("trim", Filter::Trim, false),
    ("upper", Filter::Upper, false),
];

const TESTS: [(&str, Test, bool); 13] = [
    ("boolean", Test::Boolean, false),
    ("defined", Test::Defined, false),
    ("endingwith", Test::EndingWith, true),
    ("false", Test::False, false),
    ("float", Test::Float, false),
    ("in", Test::In, true),
    ("integer", Test::Integer, false),
    ("none", Test::None, false),
    ("number", Test::Number, false),
    ("startingwith", Test::StartingWith, true),
    ("string", Test::String, false),
    ("true", Test::True, false),
    ("undefined", Test::Undefined, false),
];

const NAMES: [&str; 3] = ["name", "labels", "facts"];

/// Returns the tokens of an expression as a tree, or what is wrong with them.
pub(super) fn parse(tokens: &[Token]) -> Result<Node, String> {
    let mut reader = Reader { tokens, depth: 0 };
    let node = reader.any()?;
    match reader.tokens.first() {
        None => Ok(node),
        Some(token) => Err(unexpected(token)),
    }
}

fn unexpected(token: &Token) -> String {
    match &token.kind {
        TokenKind::Sign("=") => "= is not supported here; compare with ==".to_owned(),
        TokenKind::Sign("(") => "a call is not supported here".to_owned(),
        TokenKind::Sign(sign @ ("*" | "**" | "~" | "+" | "-" | "/" | "//" | "%")) => {
            format!("{sign} is not supported here")
        }
        TokenKind::Sign(sign) => format!("unexpected {sign}"),
        TokenKind::Word(word) => format!("unexpected {word}"),
        TokenKind::Text(text) => format!("unexpected text {text:?}"),
        TokenKind::Int(number) => format!("unexpected number {number}"),
        TokenKind::Float(number) => format!("unexpected number {number}"),
    }
}

struct Reader<'t> {
    tokens: &'t [Token],
    depth: usize,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<&'t Token, String> {
        let (first, rest) = self.tokens.split_first().ok_or("it ends too early")?;
        self.tokens = rest;
        Ok(first)
    }

    fn take(&mut self, fits: impl Fn(&Token) -> bool) -> bool {
        let fits = self.tokens.first().is_some_and(fits);
        if fits {
            self.tokens = &self.tokens[1..];
        }
        fits
    }

    fn close(&mut self, sign: &str) -> Result<(), String> {
        match self.tokens.first() {
            Some(token) if token.is_sign(sign) => self.next().map(drop),
            Some(token) => Err(unexpected(token)),
            None => Err(format!("it ends too early, {sign:?} is missing")),
        }
    }

    /// Reads one level further in.
    fn deeper(&mut self, read: impl FnOnce(&mut Self) -> Result<Node, String>) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(format!("more than {DEPTH} parts inside each other"));
        }
        let node = read(self);
        self.depth -= 1;
        node
    }

    fn any(&mut self) -> Result<Node, String> {
        self.terms("or", Self::all, Node::Any)
    }

    fn all(&mut self) -> Result<Node, String> {
        self.terms("and", Self::not, Node::All)
    }

    fn terms(
        &mut self,
        word: &str,
        term: fn(&mut Self) -> Result<Node, String>,
        join: fn(Vec<Node>) -> Node,
    ) -> Result<Node, String> {
        let first = term(self)?;
        let mut terms = vec![first];
        while self.take(|token| token.is_word(word)) {
            terms.push(term(self)?);
        }
        Ok(if terms.len() == 1 { terms.remove(0) } else { join(terms) })
    }

    fn not(&mut self) -> Result<Node, String> {
        if self.take(|token| token.is_word("not")) {
            return self.deeper(Self::not).map(|node| Node::Not(Box::new(node)));
        }
        self.compare()
    }

    fn compare(&mut self) -> Result<Node, String> {
        let first = self.chain()?;
        let mut rest = Vec::new();
        while let Some(operator) = self.operator() {
            rest.push((operator, self.chain()?));
        }
        Ok(if rest.is_empty() { first } else { Node::Compare(Box::new(first), rest) })
    }

    fn operator(&mut self) -> Option<Operator> {
        let (operator, length) = match self.tokens {
            [not, second, ..] if not.is_word("not") && second.is_word("in") => (Operator::NotIn, 2),
            [first, ..] => match &first.kind {
                TokenKind::Word(word) if word == "in" => (Operator::In, 1),
                TokenKind::Sign("==") => (Operator::Equal, 1),
                TokenKind::Sign("!=") => (Operator::NotEqual, 1),
                TokenKind::Sign("<") => (Operator::Less, 1),
                TokenKind::Sign("<=") => (Operator::LessOrEqual, 1),
                TokenKind::Sign(">") => (Operator::More, 1),
                TokenKind::Sign(">=") => (Operator::MoreOrEqual, 1),
                _ => return None,
            },
            [] => return None,
        };
        self.tokens = &self.tokens[length..];
        Some(operator)
    }

    fn chain(&mut self) -> Result<Node, String> {
        let first = self.primary()?;
        let mut steps = Vec::new();
        while let Some(token) = self.tokens.first() {
            let step = match &token.kind {
                TokenKind::Sign(".") => {
                    self.next()?;
                    let key = self.next()?;
                    Step::Key(key.word().ok_or_else(|| unexpected(key))?.to_owned())
                }
                TokenKind::Sign("[") => {
                    self.next()?;
                    let key = self.deeper(Self::any)?;
                    self.close("]")?;
                    Step::Item(key)
                }
                TokenKind::Sign("|") => {
                    self.next()?;
                    self.filter()?
                }
                TokenKind::Word(word) if word == "is" => {
                    self.next()?;
                    self.test()?
                }
                _ => break,
            };
            steps.push(step);
        }
        Ok(if steps.is_empty() { first } else { Node::Chain(Box::new(first), steps) })
    }

    fn filter(&mut self) -> Result<Step, String> {
        let token = self.next()?;
        let word = token.word().ok_or_else(|| unexpected(token))?;
        let known = FILTERS.iter().find(|(name, ..)| *name == word);
        let (_, filter, takes) = known.ok_or_else(|| unknown("filter", word, &FILTERS.map(|(name, ..)| name)))?;
        let argument = if self.take(|token| token.is_sign("(")) {
            let argument = if *takes { Some(self.deeper(Self::any)?) } else { None };
            self.close(")")?;
            argument
        } else {
            None
        };
        Ok(Step::Filter(*filter, argument))
    }

    fn test(&mut self) -> Result<Step, String> {
        let negated = self.take(|token| token.is_word("not"));
        let token = self.next()?;
        let word = token.word().ok_or_else(|| unexpected(token))?;
        let known = TESTS.iter().find(|(name, ..)| *name == word);
        let (_, test, takes) = known.ok_or_else(|| unknown("test", word, &TESTS.map(|(name, ..)| name)))?;
        let argument = if *takes { Some(self.deeper(Self::primary)?) } else { None };
        Ok(Step::Test { test: *test, negated, argument })
    }

    fn primary(&mut self) -> Result<Node, String> {
        let token = self.next()?;
        match &token.kind {
            TokenKind::Sign("(") => {
                let node = self.deeper(Self::any)?;
                self.close(")")?;
                Ok(node)
            }
            TokenKind::Sign("[") => self.deeper(Self::list),
            TokenKind::Sign("-") => match self.next()?.kind {
                TokenKind::Int(number) => Ok(Node::Int(-i128::try_from(number).unwrap_or(i128::MAX))),
                TokenKind::Float(number) => Ok(Node::Float(-number)),
                _ => Err(unexpected(token)),
            },
            TokenKind::Text(text) if text.contains(char::REPLACEMENT_CHARACTER) => {
                Err("a character by its number is not supported here".to_owned())
            }
            TokenKind::Text(text) => Ok(Node::Text(text.clone())),
            TokenKind::Int(number) => Ok(Node::Int(i128::try_from(*number).unwrap_or(i128::MAX))),
            TokenKind::Float(number) => Ok(Node::Float(*number)),
            TokenKind::Word(word) => match word.as_str() {
                "name" => Ok(Node::Name),
                "labels" => Ok(Node::Labels),
                "facts" => Ok(Node::Facts),
                "true" | "True" => Ok(Node::Bool(true)),
                "false" | "False" => Ok(Node::Bool(false)),
                "none" | "None" => Ok(Node::Null),
                "and" | "or" | "in" | "is" | "if" | "else" => Err(unexpected(token)),
                word => Err(unknown("name", word, &NAMES)),
            },
            TokenKind::Sign(_) => Err(unexpected(token)),
        }
    }

    fn list(&mut self) -> Result<Node, String> {
        let mut items = Vec::new();
        while !self.take(|token| token.is_sign("]")) {
            items.push(self.any()?);
            if !self.take(|token| token.is_sign(",")) {
                self.close("]")?;
                break;
            }
        }
        Ok(Node::List(items))
    }
}
