//! Importing from every kind of source.

mod damage;
mod documents;
mod pull;
mod samples;
mod sources;
