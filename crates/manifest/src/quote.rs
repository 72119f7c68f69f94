//! Quoting for the languages of configuration files: a value stays one value, or is refused.

/// The text cannot be written in this language at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a value for {language} cannot hold {what}")]
pub struct Unquotable {
    language: &'static str,
    what: &'static str,
}

fn no_control(text: &str, language: &'static str) -> Result<(), Unquotable> {
    if text.chars().any(char::is_control) {
        return Err(Unquotable {
            language,
            what: "line breaks or other control characters",
        });
    }
    Ok(())
}

/// One argument of an nginx directive.
///
/// A dollar sign is refused: nginx would read a variable, and it knows no way to escape one.
pub fn nginx(text: &str) -> Result<String, Unquotable> {
    no_control(text, "nginx")?;
    if text.contains('$') {
        return Err(Unquotable {
            language: "nginx",
            what: "a dollar sign",
        });
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    Ok(quoted)
}

/// A value of a PHP or PHP-FPM configuration file.
///
/// Single quotes hold anything but themselves; double quotes take those, but then nothing that
/// PHP would expand.
pub fn ini(text: &str) -> Result<String, Unquotable> {
    no_control(text, "PHP")?;
    if text.is_empty() {
        Ok("\"\"".to_owned())
    } else if !text.contains('\'') {
        Ok(format!("'{text}'"))
    } else if !text.contains(['"', '\\', '$']) {
        Ok(format!("\"{text}\""))
    } else {
        Err(Unquotable {
            language: "PHP",
            what: "a single quote together with a double quote, a backslash or a dollar sign",
        })
    }
}

/// A string literal of PHP source.
pub fn php(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('\'');
    for c in text.chars() {
        if matches!(c, '\'' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What nginx makes of a quoted argument.
    fn read_nginx(quoted: &str) -> String {
        let inner = quoted.strip_prefix('"').unwrap();
        let mut chars = inner.chars();
        let mut text = String::new();
        loop {
            match chars.next().expect("the quote is closed") {
                '\\' => text.push(chars.next().unwrap()),
                '"' => break,
                c => text.push(c),
            }
        }
        assert_eq!(chars.next(), None, "nothing follows the closing quote");
        text
    }

    #[test]
    fn hostile_values_are_refused_or_kept_whole() {
        assert!(nginx("a\n} server {").is_err());
        assert!(nginx("$host").is_err());
        assert_eq!(nginx("a\"; }").unwrap(), "\"a\\\"; }\"");
        assert!(ini("a\nextension=evil.so").is_err());
        assert!(ini("it's $HOME").is_err());
        assert_eq!(ini("p$ss\"w").unwrap(), "'p$ss\"w'");
        assert_eq!(ini("it's").unwrap(), "\"it's\"");
        assert_eq!(php("it's \\"), "'it\\'s \\\\'");
    }

    proptest! {
        #[test]
        fn what_nginx_reads_is_what_was_written(text in any::<String>()) {
            if let Ok(quoted) = nginx(&text) {
                prop_assert_eq!(read_nginx(&quoted), text);
            }
        }

        #[test]
        fn a_php_setting_never_ends_its_quotes_early(text in any::<String>()) {
            if let Ok(quoted) = ini(&text) {
                let mark = quoted.chars().next().unwrap();
                let inner = &quoted[1..quoted.len() - 1];
                prop_assert!(!inner.contains(mark) && !inner.contains('\n'));
                prop_assert_eq!(inner, text);
            }
        }
    }
}
