//! A question for which a person has to read something first.
//!
//! Owns: the question. Does not own: the line that is typed ([`super::line`]), the look of it
//! ([`super::view`]).

/// What a person is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inquiry {
    /// What it is about, in a word or two.
    pub title: String,
    /// What has to be known to answer: lines. What is too long for a screen has pages.
    pub text: String,
    /// The question.
    pub question: String,
}
