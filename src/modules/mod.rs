//! One room for each nginx module.
