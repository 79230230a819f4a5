//! Runs the examples of pages of plugins: `cargo run -p heddle-integration --example pages -- run [NAME…]`.
#![allow(missing_docs)]

use std::process::ExitCode;

use heddle_integration::pages;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.split_first() {
        Some((first, rest)) if first == "run" => run(if rest.is_empty() { pages::names() } else { rest.to_vec() }),
        _ => {
            eprintln!("usage: pages run [NAME…]");
            ExitCode::from(2)
        }
    }
}

fn run(names: Vec<String>) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for name in names {
        match pages::run(&pages::text(&name)) {
            Ok(()) => println!("{name}: as shown"),
            Err(why) => {
                println!("{name}: not as shown\n{why}\n");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
