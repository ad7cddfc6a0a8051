//! Plans in the database: a step is read, decided and written in one transaction.

pub mod expressions;
