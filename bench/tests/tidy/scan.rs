//! A scanner that knows just enough Rust: where comments and literals are, and where functions end.

/// The source with the insides of comments, strings and character literals blanked out. Lines stay
/// where they are.
pub(super) fn mask(source: &str) -> String {
    let text: Vec<char> = source.chars().collect();
    let mut out: Vec<char> = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let end = literal_end(&text, at);
        if end > at {
            out.extend(text[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            at = end;
        } else {
            out.push(text[at]);
            at += 1;
        }
    }
    out.into_iter().collect()
}

/// End of the comment or literal that begins at `at`; `at` itself when none does.
fn literal_end(text: &[char], at: usize) -> usize {
    let follows = |ahead: usize, wanted: char| text.get(at + ahead) == Some(&wanted);
    let inside_word = at > 0 && (text[at - 1].is_alphanumeric() || text[at - 1] == '_');
    match text[at] {
        '/' if follows(1, '/') => line_end(text, at),
        '/' if follows(1, '*') => comment_end(text, at),
        '"' => string_end(text, at),
        'b' if !inside_word && follows(1, '"') => string_end(text, at + 1),
        'b' if !inside_word && follows(1, '\'') => character_end(text, at + 1),
        'r' if !inside_word => raw_end(text, at, at + 1),
        'b' if !inside_word && follows(1, 'r') => raw_end(text, at, at + 2),
        '\'' => character_end(text, at),
        _ => at,
    }
}

fn line_end(text: &[char], at: usize) -> usize {
    text[at..]
        .iter()
        .position(|&c| c == '\n')
        .map_or(text.len(), |length| at + length)
}

/// Block comments nest.
fn comment_end(text: &[char], at: usize) -> usize {
    let (mut depth, mut end) = (0usize, at);
    while end < text.len() {
        match (text[end], text.get(end + 1)) {
            ('/', Some('*')) => (depth, end) = (depth + 1, end + 2),
            ('*', Some('/')) => {
                (depth, end) = (depth - 1, end + 2);
                if depth == 0 {
                    return end;
                }
            }
            _ => end += 1,
        }
    }
    end
}

fn string_end(text: &[char], quote: usize) -> usize {
    let mut end = quote + 1;
    while end < text.len() && text[end] != '"' {
        end += if text[end] == '\\' { 2 } else { 1 };
    }
    (end + 1).min(text.len())
}

/// `r"..."`, `r#"..."#` and so on; `at` when this is no raw string (an identifier, `r#type`).
fn raw_end(text: &[char], at: usize, after: usize) -> usize {
    let hashes = text[after..].iter().take_while(|&&c| c == '#').count();
    if text.get(after + hashes) != Some(&'"') {
        return at;
    }
    let mut end = after + hashes + 1;
    while end < text.len() {
        let closed = text[end] == '"'
            && text.len() >= end + 1 + hashes
            && text[end + 1..end + 1 + hashes].iter().all(|&c| c == '#');
        end += 1;
        if closed {
            return end + hashes;
        }
    }
    end
}

/// A character literal; a lifetime is none.
fn character_end(text: &[char], quote: usize) -> usize {
    match (text.get(quote + 1), text.get(quote + 2)) {
        (Some('\\'), Some(_)) => {
            let rest = &text[(quote + 3).min(text.len())..];
            rest.iter()
                .position(|&c| c == '\'')
                .map_or(text.len(), |length| quote + 4 + length)
        }
        (Some(_), Some('\'')) => quote + 3,
        _ => quote,
    }
}

/// Name, first line (from 1) and lines of code of every function with a body, blank and comment
/// lines not counted. Takes masked source.
pub(super) fn functions(masked: &str) -> Vec<(String, usize, usize)> {
    let text: Vec<char> = masked.chars().collect();
    let mut found = Vec::new();
    for at in words(&text, "fn") {
        let name: String = text[at + 2..]
            .iter()
            .skip_while(|c| c.is_whitespace())
            .take_while(|c| c.is_alphanumeric() || **c == '_')
            .collect();
        if name.is_empty() {
            continue;
        }
        let Some(open) = body_start(&text, at) else {
            continue;
        };
        let close = matching(&text, open);
        let body: String = text[at..close].iter().collect();
        let lines = body.lines().filter(|line| !line.trim().is_empty()).count();
        let first = text[..at].iter().filter(|&&c| c == '\n').count() + 1;
        found.push((name, first, lines));
    }
    found
}

/// Places where `word` stands as a word of its own.
pub(super) fn words(text: &[char], word: &str) -> Vec<usize> {
    let word: Vec<char> = word.chars().collect();
    let part = |c: Option<&char>| c.is_some_and(|c| c.is_alphanumeric() || *c == '_');
    (0..text.len().saturating_sub(word.len() - 1))
        .filter(|&at| text[at..at + word.len()] == word[..])
        .filter(|&at| !part(text.get(at + word.len())) && (at == 0 || !part(text.get(at - 1))))
        .collect()
}

/// The brace that opens the body; none for a declaration or a function type.
fn body_start(text: &[char], from: usize) -> Option<usize> {
    let mut depth = 0i32;
    for (offset, &c) in text[from..].iter().enumerate() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            ';' if depth == 0 => return None,
            '{' if depth == 0 => return Some(from + offset),
            _ if depth < 0 => return None,
            _ => {}
        }
    }
    None
}

/// One past the brace that closes the one at `open`.
fn matching(text: &[char], open: usize) -> usize {
    let mut depth = 0usize;
    for (offset, &c) in text[open..].iter().enumerate() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return open + offset + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_comments_do_not_fool_the_scanner() {
        let source = r##"
/* a { /* nested } */ fn no() { */
fn one<'a>(x: &'a str) -> char { let _ = "} fn no() {"; let c = '{'; let d = '\''; c.max(d) }
fn two() {
    // } not the end
    let _ = r#"}"}"#;
    let _ = b"}";

    let r = 'r';
}
trait T { fn declared(&self, f: fn(u8) -> u8); }
"##;
        let masked = mask(source);
        assert_eq!(masked.lines().count(), source.lines().count());
        let found = functions(&masked);
        let named: Vec<(&str, usize)> = found
            .iter()
            .map(|(name, _, lines)| (name.as_str(), *lines))
            .collect();
        assert_eq!(named, [("one", 1), ("two", 5)]);
        assert_eq!(found[1].1, 4);
    }

    #[test]
    fn generics_and_where_clauses_belong_to_the_function() {
        let source = "fn f<T>(x: [u8; 3], y: impl Fn(u8) -> (u8, u8)) -> Vec<T>\nwhere\n    T: Clone,\n{\n    g()\n}\n";
        let found = functions(&mask(source));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].2, 6);
    }
}
