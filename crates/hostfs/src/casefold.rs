//! Names whatever their case: what two names are compared as, and what is remembered of directories.
//!
//! A name is folded character by character, as NTFS compares names: one character for one, no
//! normalization, the same rule for every language. What is not UTF-8 has letters from A to Z only.

pub(crate) mod index;
pub(crate) mod spellings;

/// Which names a guest may use for one file (`--casefold`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaseFold {
    /// The host's name alone.
    Off,
    /// The letters a to z mean the same in either case.
    Ascii,
    /// Every letter that has a case does.
    Unicode,
}

/// Letter without a dot: its capital is that of the letter with one, of which it is no spelling.
const DOTLESS_I: char = '\u{131}';

impl CaseFold {
    /// Writes into `folded` what a name is compared as.
    pub(crate) fn fold_into(self, name: &[u8], folded: &mut Vec<u8>) {
        folded.clear();
        let text = match self {
            Self::Off => {
                folded.extend_from_slice(name);
                return;
            }
            Self::Ascii => None,
            Self::Unicode if name.is_ascii() => None,
            Self::Unicode => std::str::from_utf8(name).ok(),
        };
        let Some(text) = text else {
            folded.extend(name.iter().map(u8::to_ascii_lowercase));
            return;
        };
        let mut bytes = [0; 4];
        for letter in text.chars() {
            folded.extend_from_slice(simple(letter).encode_utf8(&mut bytes).as_bytes());
        }
    }

    /// What a name is compared as.
    pub(crate) fn fold(self, name: &[u8]) -> Vec<u8> {
        let mut folded = Vec::with_capacity(name.len());
        self.fold_into(name, &mut folded);
        folded
    }
}

/// Simple case folding (Unicode, CaseFolding.txt, C and S): to the capital and from there to the small letter.
///
/// By way of the capital, so that all small forms of one letter meet. A letter whose other case
/// has several characters keeps its own.
fn simple(letter: char) -> char {
    if letter == DOTLESS_I {
        return letter;
    }
    let capital = only(letter.to_uppercase()).unwrap_or(letter);
    only(capital.to_lowercase()).unwrap_or(capital)
}

fn only(mut letters: impl Iterator<Item = char>) -> Option<char> {
    let first = letters.next()?;
    letters.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alike(rule: CaseFold, one: &[u8], other: &[u8]) -> bool {
        rule.fold(one) == rule.fold(other)
    }

    /// Each row: two names, and whether they are alike by the rules `ascii` and `unicode`.
    #[test]
    fn names_are_alike_by_the_rule_that_was_chosen() {
        let cases: &[(&str, &str, bool, bool)] = &[
            ("Read Me.TXT", "rEAD mE.txt", true, true),
            ("a", "b", false, false),
            ("[", "{", false, false),
            // A with diaeresis; the same decomposed is another name, as on NTFS.
            ("\u{c4}", "\u{e4}", false, true),
            ("\u{c4}", "A\u{308}", false, false),
            // Sharp s has a capital, but two letters are not one.
            ("\u{df}", "\u{1e9e}", false, true),
            ("stra\u{df}e", "STRASSE", false, false),
            // The three small forms of a letter: sigma, also at the end of a word.
            ("\u{3c3}", "\u{3c2}", false, true),
            ("\u{3a3}", "\u{3c2}", false, true),
            // Kelvin and long s are the letters that they look like.
            ("\u{212a}", "k", false, true),
            ("\u{17f}", "S", false, true),
            // Neither i without a dot nor I with one is i, whatever the language.
            ("\u{131}", "I", false, false),
            ("\u{130}", "i", false, false),
            // Alpha with iota below: small, and as a title has it.
            ("\u{1fb3}", "\u{1fbc}", false, true),
            // Beyond 16 bits: Deseret; and a script whose small letters came later.
            ("\u{10400}", "\u{10428}", false, true),
            ("\u{13a0}", "\u{ab70}", false, true),
            // No case at all.
            ("\u{5d0}", "\u{5d1}", false, false),
        ];
        for (one, other, ascii, unicode) in cases {
            let (one_bytes, other_bytes) = (one.as_bytes(), other.as_bytes());
            let by = |rule| alike(rule, one_bytes, other_bytes);
            assert_eq!(by(CaseFold::Ascii), *ascii, "{one} {other}");
            assert_eq!(by(CaseFold::Unicode), *unicode, "{one} {other}");
            assert!(!by(CaseFold::Off), "{one} {other}");
        }
    }

    #[test]
    fn a_name_that_is_no_text_has_ascii_letters_only() {
        for rule in [CaseFold::Ascii, CaseFold::Unicode] {
            assert!(alike(rule, b"A\xff\xc3\x84", b"a\xff\xc3\x84"));
            assert!(!alike(rule, b"\xff\xc3\x84", b"\xff\xc3\xa4"));
            assert!(!alike(rule, b"\xc4", b"\xe4"), "no code page is guessed");
        }
    }

    /// Over all characters: what is folded stays, and both cases of a letter fold to the same.
    #[test]
    fn folding_is_the_same_from_either_case_and_final() {
        let mut folded = 0;
        for letter in '\0'..=char::MAX {
            let to = simple(letter);
            folded += usize::from(to != letter);
            assert_eq!(simple(to), to, "{letter:?}");
            for case in [only(letter.to_uppercase()), only(letter.to_lowercase())] {
                let case = case.filter(|_| letter != DOTLESS_I);
                assert_eq!(case.map_or(to, simple), to, "{letter:?}");
            }
            let byte = u8::try_from(letter).ok().filter(u8::is_ascii);
            let small = byte.map_or(to, |byte| byte.to_ascii_lowercase().into());
            assert_eq!(to, small, "{letter:?}");
        }
        assert!(folded > 1400, "{folded} letters of some thirty scripts");
    }
}
