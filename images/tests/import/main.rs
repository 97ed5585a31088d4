//! Importing from every kind of source.

mod damage;
mod pull;
mod samples;
mod sources;
