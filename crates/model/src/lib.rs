//! Ids, names, units and lifecycles of Undine; pure.
