//! Paints twelve prompts of different kinds and prints how long each took:
//! `cargo run -p artist --example gallery -- DIRECTORY [SEED WIDTH HEIGHT NEGATIVE_PROMPT]`.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use artist::{Format, Order, paint};

const PROMPTS: [(&str, &str); 12] = [
    (
        "noir",
        "Noir detective in 1940s Venice, fog over the canal, a lone figure on a bridge under a full moon, moody, film grain",
    ),
    ("mars", "retro sci-fi movie poster, \"The Last Lighthouse on Mars\", an astronaut looking up at a huge sun"),
    ("samurai", "Lone samurai before a giant red sun, minimalist ink style, mountains in mist"),
    (
        "western",
        "A wide-screen western. The sun is going down behind the mesas and a gunslinger in a long coat walks back into the \
         town that hanged his brother. He has one bullet left and he knows who it is for. Dusty, golden, epic, painted \
         like the posters of the sixties, lots of empty sky",
    ),
    ("orphanage", "haunted orphanage, horror, snow, a child with a red balloon"),
    ("bakery", "Comédie romantique dans une boulangerie à Paris, couleurs pastel"),
    ("underwater", "Ein Abenteuer in der Tiefsee: ein Taucher, ein altes U-Boot und ein riesiger Wal"),
    ("fox", "animated family film about a little fox who wants to touch the moon, autumn forest"),
    ("war", "war thriller, burning city at night, one soldier walks home through the ruins"),
    ("tokyo", "サイバーパンク東京の夜、雨とネオン"),
    ("lake", "my grandmother's summer house by the lake"),
    ("castle", "El último dragón: una guerrera y un castillo en las montañas al amanecer, fantasía épica"),
];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let directory = arguments.first().ok_or("usage: gallery DIRECTORY [SEED WIDTH HEIGHT NEGATIVE_PROMPT]")?;
    let number = |i: usize, otherwise| arguments.get(i).map_or(Ok(otherwise), |text| text.parse::<u32>());
    let (seed, width, height) = (number(1, 7)?, number(2, 832)?, number(3, 1216)?);
    let negative_prompt = arguments.get(4).map_or("", String::as_str);
    std::fs::create_dir_all(directory)?;
    for (name, prompt) in PROMPTS {
        let start = Instant::now();
        let file = paint(&Order { prompt, negative_prompt, seed, width, height }, Format::Png);
        eprintln!("{name}: {} kB in {} ms", file.len() / 1000, start.elapsed().as_millis());
        std::fs::write(Path::new(directory).join(format!("{name}.png")), file)?;
    }
    Ok(())
}
