//! The only SQL of Undine: SQLite and PostgreSQL behind one interface.
