//! Models as Hugging Face's files have them: names of weights, and `config.json`.

mod kind;
mod labels;
mod names;
mod read;
mod refuse;
mod rope;
mod write;
