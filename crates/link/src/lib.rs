//! How the programs of Undine find and trust each other: identities, mutual TLS, calls to any control instance.
