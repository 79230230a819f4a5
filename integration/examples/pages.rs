//! The pages of plugins: `cargo run -p heddle-integration --example pages -- run [NAME…]` runs their examples, `… -- bless` writes their tables
//! of fields and the index anew from the schemas.
#![allow(missing_docs, clippy::expect_used)]

use std::process::ExitCode;

use heddle_agent::filters::Registry;
use heddle_integration::pages;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.split_first() {
        Some((first, rest)) if first == "run" => run(if rest.is_empty() { pages::names() } else { rest.to_vec() }),
        Some((first, [])) if first == "bless" => bless(),
        _ => {
            eprintln!("usage: pages run [NAME…] | bless");
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

fn bless() -> ExitCode {
    match pages::outdated(&Registry::default()) {
        Ok(files) => {
            for (path, text) in files {
                println!("{}", path.display());
                std::fs::write(path, text).expect("the page can be written");
            }
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
