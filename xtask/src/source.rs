//! Rust source as the checks see it: without comments and literals, and as paths.
//!
//! This is not a parser. It knows just enough of the lexical grammar that a
//! word in a comment or a string is never taken for code, and that
//! `use a::{b, c::d};` names `a::b` and `a::c::d`. What a macro makes is not
//! seen.

/// The source with every comment, string and character literal blanked; lines keep their numbers.
pub(crate) fn code_only(text: &str) -> String {
    let mut blanked = String::with_capacity(text.len());
    let mut rest = text;
    let mut previous = ' ';
    while let Some(next) = rest.chars().next() {
        let literal = literal_len(rest, previous);
        let (taken, tail) = rest.split_at(literal.unwrap_or(next.len_utf8()));
        match literal {
            Some(_) => blanked.extend(taken.chars().map(|c| if c == '\n' { '\n' } else { ' ' })),
            None => blanked.push(next),
        }
        previous = if literal.is_some() { ' ' } else { next };
        rest = tail;
    }
    blanked
}

/// How long the comment or literal at the start of `rest` is, in bytes; none if there is none.
fn literal_len(rest: &str, previous: char) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return Some(block_comment_len(rest));
    }
    if rest.starts_with('\'') {
        return char_len(rest);
    }
    // `r"`, `br#"` and so on begin a literal; the `r` at the end of `var` does not.
    let word_goes_on = previous.is_alphanumeric() || previous == '_';
    let unprefixed = rest.trim_start_matches(['b', 'c']);
    let prefix = rest.len() - unprefixed.len();
    if prefix > 1 || (prefix == 1 && word_goes_on) {
        return None;
    }
    if let Some(body) = unprefixed.strip_prefix('"') {
        return Some(prefix + 1 + quoted_len(body, '"'));
    }
    let raw = unprefixed.strip_prefix('r')?;
    let hashes = raw.len() - raw.trim_start_matches('#').len();
    let body = raw[hashes..].strip_prefix('"')?;
    if word_goes_on {
        return None;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let len = body.find(&end).map_or(body.len(), |at| at + end.len());
    Some(prefix + 1 + hashes + 1 + len)
}

/// Length of a block comment; they nest.
fn block_comment_len(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        let tail = &rest.as_bytes()[at..];
        if tail.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if tail.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// Length of a character literal; none for a lifetime or a label.
fn char_len(rest: &str) -> Option<usize> {
    let body = &rest[1..];
    let first = body.chars().next()?;
    if first == '\\' {
        return Some(1 + quoted_len(body, '\''));
    }
    body[first.len_utf8()..]
        .starts_with('\'')
        .then(|| 1 + first.len_utf8() + 1)
}

/// Length up to and including the closing quote that no backslash escapes.
fn quoted_len(body: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        if c == quote && !escaped {
            return at + c.len_utf8();
        }
        escaped = c == '\\' && !escaped;
    }
    body.len()
}

/// The part of a file that is in the product: what stands before `#[cfg(test)] mod`.
pub(crate) fn before_tests(text: &str) -> &str {
    let mut at = 0;
    let mut attribute = None;
    for line in text.split_inclusive('\n') {
        let line_text = line.trim();
        if line_text == "#[cfg(test)]" {
            attribute = Some(at);
        } else if line_text.starts_with("mod ") && line_text.ends_with('{') {
            if let Some(start) = attribute {
                return &text[..start];
            }
        } else if !line_text.starts_with("#[") && !line_text.starts_with("//") {
            attribute = None;
        }
        at += line.len();
    }
    text
}

/// A path as the source names it, such as `std::fs::File`, and its line, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedPath {
    pub(crate) line: usize,
    pub(crate) path: String,
}

/// Every path of two or more segments that the code names, `use` groups written out.
pub(crate) fn paths(code: &str) -> Vec<NamedPath> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        at += path_at(&tokens[at..], "", &mut found).max(1);
    }
    found
}

/// Reads one path, or one group of paths, and says how many tokens it took.
fn path_at(tokens: &[(usize, &str)], prefix: &str, found: &mut Vec<NamedPath>) -> usize {
    let mut path = prefix.to_owned();
    let mut at = 0;
    let mut line = tokens.first().map_or(0, |token| token.0);
    while let Some(&(token_line, token)) = tokens.get(at) {
        if token == "{" && path.ends_with("::") {
            return at + group_at(&tokens[at..], &path, found);
        }
        let expects_segment = path.is_empty() || path.ends_with("::");
        if token == "::" && !path.is_empty() && !expects_segment {
            path.push_str("::");
        } else if token == "::" && path.is_empty() {
            // A leading `::` only says that the first segment is a crate.
        } else if expects_segment && is_segment(token) {
            path.push_str(token);
            line = token_line;
        } else {
            break;
        }
        at += 1;
    }
    let path = path.trim_end_matches("::");
    // `use std::fs::{self}` names `std::fs`.
    let path = path.strip_suffix("::self").unwrap_or(path);
    if path.contains("::") || (!prefix.is_empty() && !path.is_empty()) {
        found.push(NamedPath {
            line,
            path: path.to_owned(),
        });
    }
    at
}

/// Reads `{a, b::c}` behind a path and says how many tokens it took.
fn group_at(tokens: &[(usize, &str)], prefix: &str, found: &mut Vec<NamedPath>) -> usize {
    let mut at = 1;
    while let Some(&(_, token)) = tokens.get(at) {
        if token == "}" {
            return at + 1;
        }
        at += if is_segment(token) {
            path_at(&tokens[at..], prefix, found)
        } else {
            1
        };
        // `a as b`: the new name is not a path.
        if tokens.get(at).is_some_and(|&(_, token)| token == "as") {
            at += 2;
        }
    }
    at
}

fn is_segment(token: &str) -> bool {
    token == "*" || (token != "as" && token.starts_with(|c: char| c.is_alphabetic() || c == '_'))
}

/// Identifiers, `::` and single other characters, each with its line.
fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut tokens = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let len = if first.is_alphanumeric() || first == '_' {
                rest.find(|c: char| !c.is_alphanumeric() && c != '_')
                    .unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            tokens.push((index + 1, &rest[..len]));
            rest = rest[len..].trim_start();
        }
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_not_code() {
        let cases = [
            ("a // unsafe\nb", "a          \nb"),
            ("a /* unsafe /* x */ y */ b", "a                        b"),
            (r#"f("unsafe \" x") b"#, "f(             ) b"),
            (r##"f(r#"un"safe"#) b"##, "f(            ) b"),
            (
                r#"f(b"unsafe") var"unsafe" b"#,
                "f(         ) var         b",
            ),
            ("'\"' unsafe '\\'' x", "    unsafe      x"),
            ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
        ];
        for (text, want) in cases {
            assert_eq!(code_only(text), want, "{text}");
        }
    }

    #[test]
    fn groups_are_written_out() {
        let cases: &[(&str, &[&str])] = &[
            ("use std::fs;", &["std::fs"]),
            (
                "use std::{fs, env as e, io::{self, Read}};",
                &["std::fs", "std::env", "std::io", "std::io::Read"],
            ),
            ("let x = ::libc::read(fd);", &["libc::read"]),
            ("rustix::\n  fs::*;", &["rustix::fs::*"]),
            ("match x { a => b, c::d => e }", &["c::d"]),
            ("fn f() { g() }", &[]),
        ];
        for (code, want) in cases {
            let got: Vec<_> = paths(code).into_iter().map(|named| named.path).collect();
            assert_eq!(got, *want, "{code}");
        }
    }

    #[test]
    fn the_product_ends_where_the_test_module_begins() {
        let text = "fn a() {}\n\n#[cfg(test)]\nmod tests {\n}\n";
        assert_eq!(before_tests(text), "fn a() {}\n\n");
        let helper = "#[cfg(test)]\nfn only_for_tests() {}\nfn b() {}\n";
        assert_eq!(before_tests(helper), helper);
        let elsewhere = "#[cfg(test)]\nmod tests;\nfn b() {}\n";
        assert_eq!(before_tests(elsewhere), elsewhere);
    }
}
