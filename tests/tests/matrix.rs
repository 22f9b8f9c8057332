//! File system x sector size x table x state, there and back.
//!
//! Pairwise by default; all of it with `./build.sh test --long`.

use e2e::built::Built;
use e2e::matrix::{all, pairwise, trip};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

#[test]
fn every_file_system_there_and_back() {
    let imager = Built::find().unwrap().program("imager");
    let every = all();
    let long = std::env::var("DEPLOY_LONG").is_ok_and(|value| !value.is_empty());
    let mut cases = if long {
        every.clone()
    } else {
        pairwise(&every)
    };
    if let Ok(only) = std::env::var("MATRIX_ONLY") {
        cases = every;
        cases.retain(|case| case.to_string().contains(&only));
    }
    let mut failed = Vec::new();
    for case in &cases {
        let started = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| trip::run_case(&imager, case)));
        let word = if outcome.is_ok() { "right" } else { "WRONG" };
        println!("{word}  {case}  {:.1} s", started.elapsed().as_secs_f64());
        if outcome.is_err() {
            failed.push(case.to_string());
        }
    }
    println!("{} cases, {} wrong", cases.len(), failed.len());
    assert!(!cases.is_empty() && failed.is_empty(), "wrong: {failed:#?}");
}
