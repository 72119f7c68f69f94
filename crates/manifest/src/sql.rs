//! The SQL that makes and removes a site's database, with every name and text quoted.

use crate::spec::DatabaseSpec;

/// The password has a character that would mean something else in some mode of the database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a database password cannot hold quotes, backslashes or control characters")]
pub struct BadPassword;

/// A string literal of a password.
///
/// Nothing is escaped: whether a backslash escapes depends on the server's mode, so what would
/// need it is refused.
pub fn password(text: &str) -> Result<String, BadPassword> {
    if text.contains(['\'', '"', '\\']) || text.chars().any(char::is_control) {
        return Err(BadPassword);
    }
    Ok(format!("'{text}'"))
}

/// A name of a database or user.
pub fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Statements that make a database and its user, or bring them up to date.
pub fn create(database: &DatabaseSpec) -> Result<String, BadPassword> {
    let name = identifier(&database.name);
    let user = format!("{}@'localhost'", identifier(&database.user));
    // GRANT takes a pattern: `_` and `%` would reach other databases unless escaped.
    let pattern = database.name.replace('_', "\\_").replace('%', "\\%");
    let pattern = identifier(&pattern);
    let password = password(&database.password)?;
    Ok(format!(
        "CREATE DATABASE IF NOT EXISTS {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;\n\
         CREATE USER IF NOT EXISTS {user} IDENTIFIED BY {password};\n\
         ALTER USER {user} IDENTIFIED BY {password};\n\
         GRANT ALL PRIVILEGES ON {pattern}.* TO {user};\n"
    ))
}

/// Statements that remove a database and its user.
pub fn remove(database: &DatabaseSpec) -> String {
    format!(
        "DROP DATABASE IF EXISTS {};\nDROP USER IF EXISTS {}@'localhost';\n",
        identifier(&database.name),
        identifier(&database.user)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn database(name: &str, password: &str) -> DatabaseSpec {
        DatabaseSpec {
            id: undine_model::DatabaseId::from_parts(1, [0; 10]),
            site: undine_model::SiteId::from_parts(1, [0; 10]),
            name: name.to_owned(),
            user: name.to_owned(),
            password: password.to_owned(),
        }
    }

    #[test]
    fn a_database_is_made_with_a_user_who_reaches_nothing_else() {
        assert_eq!(
            create(&database("shop_db", "s3cret")).unwrap(),
            "CREATE DATABASE IF NOT EXISTS `shop_db` CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;\n\
             CREATE USER IF NOT EXISTS `shop_db`@'localhost' IDENTIFIED BY 's3cret';\n\
             ALTER USER `shop_db`@'localhost' IDENTIFIED BY 's3cret';\n\
             GRANT ALL PRIVILEGES ON `shop\\_db`.* TO `shop_db`@'localhost';\n"
        );
    }

    #[test]
    fn a_hostile_name_stays_one_name() {
        assert_eq!(
            identifier("a`; DROP DATABASE x; --"),
            "`a``; DROP DATABASE x; --`"
        );
        assert_eq!(
            remove(&database("x`y", "p")),
            "DROP DATABASE IF EXISTS `x``y`;\nDROP USER IF EXISTS `x``y`@'localhost';\n"
        );
    }

    proptest! {
        #[test]
        fn a_password_is_refused_or_stays_in_its_quotes(text in any::<String>()) {
            if let Ok(quoted) = password(&text) {
                let inner = &quoted[1..quoted.len() - 1];
                prop_assert_eq!(inner, text.as_str());
                prop_assert!(!inner.contains(['\'', '\\', '\n']));
            }
        }
    }
}
