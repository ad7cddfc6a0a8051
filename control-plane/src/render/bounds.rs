//! What a source may not hold if it is to be compiled in this process.
//!
//! minijinja's compiler follows long chains (`a + a + ...`, `elif` after `elif`) with the stack and works constants out at
//! once, so that `'x' * 100000000` takes its memory before anything is rendered. Both would end the control plane, not
//! just a worker: they are refused from the tokens alone.

use super::lexer::{Code, LexError, Token, TokenKind};

/// Tokens in a row without a comma, brackets counted with what they hold.
const CHAIN: usize = 1000;
/// Statements that are open at once, every `elif` counted.
const NESTING: usize = 120;
/// Bytes that a literal text may be repeated to where it is written.
const REPEATED: u128 = 4096;

/// Checks that `code`, in the order of its source, is cheap to compile.
pub fn check(code: &[Code]) -> Result<(), LexError> {
    let mut open: Vec<usize> = Vec::new();
    for code in code {
        chain(&code.tokens)?;
        repetition(&code.tokens)?;
        let Some(first) = code.tokens.first().filter(|_| code.statement) else { continue };
        match first.word() {
            Some("if" | "for" | "with" | "macro" | "block" | "call" | "filter" | "autoescape" | "set") => open.push(1),
            Some("elif" | "else") => {
                if let Some(branches) = open.last_mut() {
                    *branches += 1;
                }
            }
            Some(word) if word.starts_with("end") => {
                open.pop();
            }
            _ => {}
        }
        // A `set` that assigns has no end; it is closed at once.
        if first.is_word("set") && assigns(&code.tokens) {
            open.pop();
        }
        if open.iter().sum::<usize>() > NESTING {
            let message = format!("more than {NESTING} statements inside each other, every elif counted");
            return Err(LexError { line: first.line, message });
        }
    }
    Ok(())
}

/// Whether a `=` stands outside brackets.
fn assigns(tokens: &[Token]) -> bool {
    let mut depth = 0_usize;
    tokens.iter().any(|token| {
        match token.kind {
            TokenKind::Sign("(" | "[" | "{") => depth += 1,
            TokenKind::Sign(")" | "]" | "}") => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && token.is_sign("=")
    })
}

/// Checks the longest chain of `tokens`: what the compiler may descend into.
pub fn chain(tokens: &[Token]) -> Result<(), LexError> {
    let mut levels = vec![(0_usize, 0_usize)];
    for token in tokens {
        match token.kind {
            TokenKind::Sign("(" | "[" | "{") => levels.push((1, 0)),
            TokenKind::Sign(")" | "]" | "}") if levels.len() > 1 => {
                let (now, most) = levels.pop().unwrap_or_default();
                if let Some(outer) = levels.last_mut() {
                    outer.0 += now.max(most) + 1;
                }
            }
            TokenKind::Sign("," | ":") => {
                if let Some(level) = levels.last_mut() {
                    *level = (0, level.0.max(level.1));
                }
            }
            _ => {
                if let Some(level) = levels.last_mut() {
                    level.0 += 1;
                }
            }
        }
        if levels.iter().map(|(now, _)| now).sum::<usize>() > CHAIN {
            let message = format!("an expression of more than {CHAIN} parts; set some of it aside first");
            return Err(LexError { line: token.line, message });
        }
    }
    Ok(())
}

/// Checks that no constant text or list is repeated to more than [`REPEATED`].
fn repetition(tokens: &[Token]) -> Result<(), LexError> {
    for at in (1..tokens.len()).filter(|at| tokens[*at].is_sign("*")) {
        let left = operand(tokens, opening(tokens, at - 1), at - 1);
        let right = operand(tokens, at + 1, closing(tokens, at + 1));
        let constant = matches!(
            (left, right),
            (Operand::Text, Operand::Text | Operand::Number) | (Operand::Number, Operand::Text)
        );
        if constant && literal_repeat(tokens, at).is_none_or(|size| size > REPEATED) {
            let message =
                format!("a constant text or list is repeated; up to {REPEATED} bytes of one text are allowed");
            return Err(LexError { line: tokens[at].line, message });
        }
    }
    Ok(())
}

/// What stands beside a `*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operand {
    /// Something that is not known before it is rendered.
    Variable,
    /// A constant text or list.
    Text,
    /// Any other constant.
    Number,
}

/// Returns what the tokens from `first` to `last` are: one token, or a bracket and what it holds.
fn operand(tokens: &[Token], first: usize, last: usize) -> Operand {
    let constant_word = |word: &str| {
        matches!(word, "true" | "false" | "none" | "True" | "False" | "None" | "and" | "or" | "not" | "in")
    };
    match tokens.get(first).map(|token| &token.kind) {
        Some(TokenKind::Text(_)) => Operand::Text,
        Some(TokenKind::Word(word)) if !constant_word(word) => Operand::Variable,
        Some(TokenKind::Sign(bracket @ ("(" | "["))) if first < last && last < tokens.len() => {
            // After a name, a bracket or a text it is a call or a subscript, which is not worked out early.
            let follows = first.checked_sub(1).is_some_and(|before| match &tokens[before].kind {
                TokenKind::Word(word) => !constant_word(word) && !matches!(word.as_str(), "if" | "else" | "is"),
                TokenKind::Sign(sign) => matches!(*sign, ")" | "]" | "}"),
                TokenKind::Text(_) => true,
                TokenKind::Int(_) | TokenKind::Float(_) => false,
            });
            let inner = &tokens[first + 1..last];
            let textual = *bracket == "["
                || inner.iter().any(|token| match token.kind {
                    TokenKind::Text(_) => true,
                    TokenKind::Sign(sign) => matches!(sign, "[" | "{" | "," | "~"),
                    _ => false,
                });
            if follows || !inner.iter().all(|token| token.word().is_none_or(constant_word)) {
                Operand::Variable
            } else if textual {
                Operand::Text
            } else {
                Operand::Number
            }
        }
        _ => Operand::Number,
    }
}

/// Returns the bytes that `'text' * 40` or `40 * 'text'` comes to, if that is all there is around the sign.
fn literal_repeat(tokens: &[Token], at: usize) -> Option<u128> {
    let chained = |index: Option<usize>| {
        index
            .and_then(|index| tokens.get(index))
            .is_some_and(|token| matches!(token.kind, TokenKind::Sign("*" | "**" | "/" | "//" | "%" | "-" | ".")))
    };
    if chained(at.checked_sub(2)) || chained(Some(at + 2)) {
        return None;
    }
    match (&tokens.get(at.checked_sub(1)?)?.kind, &tokens.get(at + 1)?.kind) {
        (TokenKind::Text(text), TokenKind::Int(times)) | (TokenKind::Int(times), TokenKind::Text(text)) => {
            Some(times.saturating_mul(text.len() as u128))
        }
        _ => None,
    }
}

/// Returns where the bracket that closes at `close` opens; `close` itself if it is none.
fn opening(tokens: &[Token], close: usize) -> usize {
    let mut depth = 0_usize;
    for at in (0..=close).rev() {
        match tokens[at].kind {
            TokenKind::Sign(")" | "]" | "}") => depth += 1,
            TokenKind::Sign("(" | "[" | "{") => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    0
}

/// Returns where the bracket that opens at `open` closes; `open` itself if it is none.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.kind {
            TokenKind::Sign("(" | "[" | "{") => depth += 1,
            TokenKind::Sign(")" | "]" | "}") => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    open
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::lexer;

    fn verdict(source: &str) -> Result<(), LexError> {
        check(&lexer::code(source)?)
    }

    #[test]
    fn constants_that_would_grow_at_once_are_refused() {
        for bad in [
            "{{ 'x' * 100000000 }}",
            "{{ 100000000 * 'x' }}",
            "{{ 'x' * 1000 * 1000 * 1000 }}",
            "{{ 10 * 10 * 'x' * 10 }}",
            "{{ ('x' ~ 'y') * 10 ** 8 }}",
            "{{ ('x') * 1000000 }}",
            "{{ [0] * 100000000 }}",
            "{{ 100000000 * [0] }}",
            "{{ (1, 2) * 100000000 }}",
            "{{ (1 ~ 2) * 100000000 }}",
            "{{ (('x')) * 3 }}",
            "{{ 'x' * (9999 * 9999) }}",
            "{% if not ('x') * 3 %}{% endif %}",
        ] {
            assert!(verdict(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn everyday_arithmetic_passes() {
        for good in [
            "{{ '-' * 40 }}",
            "{{ 'x' ~ '-' * 40 ~ 'x' }}",
            "{{ values.gb * 1024 * 1024 * 1024 ~ ' bytes' }}",
            "{{ (values.a + 1) * 2 }}",
            "{{ values.list[0] * 2 }}",
            "{{ ['x'] * values.n }}",
            "{{ 'x' * (values.n + 1) }}",
            "{{ f('x') * 2 }}",
            "{{ (1 + 2) * 3 }}",
            "{% set a = 2 * 3 %}",
        ] {
            assert_eq!(verdict(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn long_chains_and_deep_nesting_are_refused() {
        for bad in [
            format!("{{{{ x{} }}}}", " + 1".repeat(1000)),
            format!("{{{{ x{} }}}}", ".a".repeat(1000)),
            format!("{{{{ x{} }}}}", "|upper".repeat(1000)),
            format!("{{{{ x{} }}}}", "(1,2)".repeat(1000)),
            format!("{{{{ {}x }}}}", "not ".repeat(1001)),
            format!("{{{{ {}x{} }}}}", "(".repeat(100), " + 1 + 1 + 1 + 1 + 1 + 1)".repeat(100)),
            format!("{{% if x %}}{}{{% endif %}}", "{% elif x %}".repeat(200)),
            format!("{}{}", "{% if x %}".repeat(200), "{% endif %}".repeat(200)),
            format!("{{% if x %}}{{% set a|f(b=1) %}}{{% endset %}}{}{{% endif %}}", "{% elif x %}".repeat(200)),
        ] {
            assert!(verdict(&bad).is_err(), "{}", &bad[..40]);
        }
        for good in [
            format!("{{{{ [x{}] }}}}", ", 1".repeat(5000)),
            "{% if x %}a{% else %}b{% endif %}".repeat(500),
            "{% set a = 1 %}".repeat(500),
            "{% set a %}x{% endset %}".repeat(500),
        ] {
            assert_eq!(verdict(&good), Ok(()), "{}", &good[..20]);
        }
    }

    #[test]
    fn whatever_passes_compiles_on_a_small_stack() {
        let sources = [
            format!("{{{{ x{} }}}}", " + 1".repeat(490)),
            format!("{{{{ {}x }}}}", "not ".repeat(990)),
            format!("{{{{ x{} }}}}", "|upper".repeat(490)),
            format!("{{% if x %}}{}{{% endif %}}", "{% elif x %}a".repeat(118)),
            format!("{}{{{{ x{} }}}}{}", "{% if x %}".repeat(118), " + 1".repeat(490), "{% endif %}".repeat(118)),
        ];
        let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(move || {
            for source in &sources {
                assert_eq!(verdict(source), Ok(()), "{}", &source[..40]);
                let mut environment = minijinja::Environment::new();
                let _compiled_or_refused = environment.add_template("a", source);
            }
        });
        thread.expect("thread").join().expect("no overflow");
    }
}
