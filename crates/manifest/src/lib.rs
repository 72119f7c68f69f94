//! What one server must run, rendered to the files that its services read; pure.
