//! One VM's life on one host: QMP, storage daemon, templates; knows no cluster.
