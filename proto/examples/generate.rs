//! Writes `src/gen` anew from `proto/`; run it after a change of a `.proto` file.

#[path = "../tests/generator/mod.rs"]
mod generator;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = generator::root().join("src/gen");
    for (path, text) in generator::generate()? {
        let file = out.join(path);
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(file, text)?;
    }
    Ok(())
}
