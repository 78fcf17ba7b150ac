//! Reading a prompt: what to paint, in which mood, and which words to set on it.

use typography::Face;

use crate::noise::{Random, hash_text};
use crate::{Order, title};

/// The mood of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Genre {
    Noir,
    SciFi,
    Western,
    Horror,
    Samurai,
    Fantasy,
    Romance,
    Adventure,
    Drama,
}

/// The setting of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Street,
    Canal,
    Shop,
    Manor,
    Forest,
    Desert,
    Peaks,
    Planet,
    Sea,
    Deep,
}

/// The time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Time {
    Night,
    Dawn,
    Day,
    Dusk,
}

/// What falls or drifts through the air.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    Rain,
    Snow,
    Embers,
    Petals,
}

/// A prompt as it was understood.
pub(crate) struct Brief {
    pub(crate) genre: Genre,
    pub(crate) mood: &'static Mood,
    pub(crate) place: Place,
    pub(crate) time: Option<Time>,
    pub(crate) weather: Option<Weather>,
    pub(crate) title: String,
    pub(crate) tagline: &'static str,
    /// The prompt's words in lower case, with a blank about each.
    words: String,
    /// The same of the negative prompt.
    unwanted: String,
}

/// What goes with a genre.
pub(crate) struct Mood {
    pub(crate) genre: Genre,
    pub(crate) name: &'static str,
    /// The face of the title, and the space between its letters in ems.
    pub(crate) face: Face,
    pub(crate) tracking: f32,
    taglines: &'static [&'static str],
    /// Where it plays if the prompt does not say.
    places: &'static [Place],
    /// Terms that name the genre outright.
    terms: &'static str,
    /// Terms that suggest it, and count a third.
    hints: &'static str,
}

#[rustfmt::skip]
static MOODS: [Mood; 9] = [
    Mood { genre: Genre::Noir, name: "Noir", face: Face::LeagueGothic, tracking: 0.02, places: &[Place::Street, Place::Canal],
        taglines: &["Everyone in this town has an alibi.", "The truth keeps late hours."],
        terms: "noir,detective,gangster,private eye,femme fatale,heist,mafia,détective,detektiv,探偵",
        hints: "crime,murder,mystery,thriller,spy,1930s,1940s,fog,rain,fedora,conspiracy,trench coat,venice,mord,kommissar,geheimnis,nebel,policier" },
    Mood { genre: Genre::SciFi, name: "Science Fiction", face: Face::Orbitron, tracking: 0.04, places: &[Place::Planet],
        taglines: &["Someone has to answer the signal.", "The future arrived without us."],
        terms: "sci-fi,science fiction,science-fiction,cyberpunk,spaceship,starship,astronaut,android,robot,alien,mars,martian,galaxy,dystopian,space,宇宙,ロボット",
        hints: "planet,future,futuristic,colony,neon,orbit,ai,moon base,rocket,laser,apocalyptic,time travel,futur" },
    Mood { genre: Genre::Western, name: "Western", face: Face::AlfaSlabOne, tracking: 0.03, places: &[Place::Desert],
        taglines: &["Some debts are paid at noon.", "The law ends at the river."],
        terms: "western,cowboy,gunslinger,outlaw,sheriff,saloon,bounty hunter,frontier,vaquero",
        hints: "desert,horse,canyon,dusty,gunfight,ranch,revolver,mesa,désert" },
    Mood { genre: Genre::Horror, name: "Horror", face: Face::Cinzel, tracking: 0.05, places: &[Place::Manor, Place::Forest],
        taglines: &["Count the beds again.", "It remembers your name."],
        terms: "horror,haunted,ghost,demon,vampire,zombie,slasher,possessed,nightmare,witch,terror,horreur,hantée,fantôme,gespenst,幽霊",
        hints: "orphanage,creepy,monster,curse,cursed,asylum,manor,blood,scream,graveyard,manoir,sinister,eerie" },
    Mood { genre: Genre::Samurai, name: "Samurai", face: Face::BebasNeue, tracking: 0.03, places: &[Place::Peaks],
        taglines: &["One blade. One road. One dawn.", "Honour is a long way home."],
        terms: "samurai,ronin,katana,shogun,ninja,shinobi,samouraï,侍,武士,忍者",
        hints: "japan,edo,feudal,kyoto,sword,temple,warrior" },
    Mood { genre: Genre::Fantasy, name: "Fantasy", face: Face::Cinzel, tracking: 0.05, places: &[Place::Peaks],
        taglines: &["Every legend has a first night.", "The old roads are waking."],
        terms: "fantasy,dragon,wizard,elf,elves,kingdom,sorcerer,knight,enchanted,drache,chevalier,竜",
        hints: "epic,magic,quest,castle,sword,myth,legend,queen,king,elven,château,prophecy" },
    Mood { genre: Genre::Romance, name: "Romance", face: Face::PlayfairDisplay, tracking: 0.0, places: &[Place::Shop, Place::Sea, Place::Street],
        taglines: &["Some things take time to rise.", "Love was not on the menu."],
        terms: "romance,romantic,love,rom-com,romcom,wedding,bakery,lovers,kiss,amour,amoureux,amor,liebe,恋",
        hints: "comedy,cozy,cosy,paris,heart,couple,flower,summer,baker,café,cafe,chocolate,florist,comédie" },
    Mood { genre: Genre::Adventure, name: "Adventure", face: Face::BebasNeue, tracking: 0.03, places: &[Place::Sea, Place::Peaks, Place::Forest],
        taglines: &["Beyond the last map.", "Fortune favours the lost."],
        terms: "adventure,pirate,treasure,expedition,explorer,submarine,deep-sea,jungle,aventure,abenteuer,aventura,冒険",
        hints: "ocean,sea,island,ship,whale,mountain,lost,diver,shark,voyage,mer,océan,meer,mar,海,wild,animated,fox" },
    Mood { genre: Genre::Drama, name: "Drama", face: Face::Cinzel, tracking: 0.09, places: &[Place::Sea, Place::Peaks, Place::Street],
        taglines: &["What the years remember.", "The longest way is home."],
        terms: "drama,biopic,coming-of-age,documentary,drame,family,memoir,war",
        hints: "quiet,modern,story,mother,father,sister,brother,lake,memory,grief,village,soldier" },
];

// In the tables below, terms are separated by commas; plurals in -s are found as well.
type Terms<T> = &'static [(T, &'static str)];

#[rustfmt::skip]
const PLACES: Terms<Place> = &[
    (Place::Canal, "venice,venise,venezia,venedig,canal,gondola,amsterdam,river,bridge,pont"),
    (Place::Street, "city,street,alley,tokyo,new york,chicago,los angeles,london,berlin,metropolis,downtown,skyscraper,cyberpunk,ville,rue,stadt,ciudad,urban,ruins,東京,街"),
    (Place::Shop, "bakery,café,cafe,shop,bookshop,bookstore,restaurant,boulangerie,florist,baker,market,diner"),
    (Place::Manor, "orphanage,manor,mansion,house,asylum,hotel,manoir,maison,haus,school,church,屋敷"),
    (Place::Forest, "forest,wood,woods,jungle,forêt,wald,schwarzwald,bosque,cabin,森"),
    (Place::Desert, "desert,dune,sahara,canyon,mesa,egypt,pyramid,wasteland,désert,wüste,desierto,砂漠"),
    (Place::Peaks, "castle,château,mountain,peak,valley,hill,highland,volcano,fuji,alps,montagne,berg,montaña,cliff,山"),
    (Place::Planet, "mars,martian,planet,space,moon base,galaxy,orbit,colony,宇宙"),
    (Place::Deep, "deep-sea,deep sea,underwater,submarine,diver,abyss,coral,ocean floor,shark,whale,sous-marin,深海"),
    (Place::Sea, "sea,ocean,ship,boat,pirate,island,lighthouse,harbor,harbour,beach,lake,coast,shore,mer,plage,playa,strand,océan,meer,mar,phare,海"),
];
const TIMES: Terms<Time> = &[
    (Time::Dawn, "dawn,sunrise,morning,aube,aurore,morgen,amanecer,夜明け"),
    (Time::Night, "night,midnight,moonlit,moonlight,nuit,noche,nacht,notte,夜"),
    (Time::Dusk, "dusk,sunset,twilight,evening,golden hour,crépuscule,abend,夕"),
    (Time::Day, "day,noon,midday,sunny,daylight,summer"),
];
const WEATHERS: Terms<Weather> = &[
    (Weather::Rain, "rain,rainy,storm,stormy,pluie,regen,lluvia,wet,雨"),
    (Weather::Snow, "snow,snowy,winter,ice,frozen,blizzard,arctic,neige,schnee,hiver,雪"),
    (Weather::Embers, "fire,burning,war,battle,dragon,volcano,ash,flame,feu,feuer"),
    (Weather::Petals, "cherry blossom,blossom,petal,spring,autumn,fall,leaves,桜"),
];
/// Taglines in other languages, each with words that give its language away.
const FOREIGN_TAGLINES: Terms<&str> = &[
    ("Rien ne sera plus comme avant.", "une,des,du,dans,et,les,avec,sur"),
    ("Nada volverá a ser igual.", "el,los,una,en,con,las,por"),
    ("Nichts bleibt, wie es war.", "der,die,das,und,ein,eine,im,mit"),
    ("Niente sarà più come prima.", "il,gli,nel,della,con,che"),
    ("Nada será como antes.", "uma,um,os,em,com,não,na"),
];

impl Brief {
    pub(crate) fn read(order: &Order<'_>) -> Brief {
        let words = spaced_words(order.prompt);
        let unwanted = spaced_words(order.negative_prompt);
        let mut random = Random::new(hash_text(&words) ^ u64::from(order.seed));
        let find = |terms| count_terms(terms, &words, &unwanted);
        let known = best(MOODS.iter().map(|mood| (mood, 3 * find(mood.terms) + find(mood.hints))));
        // What the prompt leaves open is the same for every seed.
        let mut whim = Random::new(hash_text(&words));
        let neutral = [Genre::Drama, Genre::Adventure, Genre::Noir, Genre::Fantasy].map(mood_of);
        let mood = known.unwrap_or_else(|| *whim.pick::<&Mood>(&neutral));
        let place = best(PLACES.iter().map(|row| (row.0, find(row.1))));
        let language = best(FOREIGN_TAGLINES.iter().map(|row| (row.0, find(row.1) / 2)));
        let english = count_terms("the,of,and,with,in,an", &words, "") > 1;
        Brief {
            genre: mood.genre,
            mood,
            place: place.unwrap_or_else(|| *whim.pick(mood.places)),
            time: best(TIMES.iter().map(|row| (row.0, find(row.1)))),
            weather: best(WEATHERS.iter().map(|row| (row.0, find(row.1)))),
            title: title::derive(order.prompt, known.map_or("Untitled", |mood| mood.name), &mut random),
            tagline: language.filter(|_| !english).unwrap_or_else(|| *random.pick(mood.taglines)),
            words,
            unwanted,
        }
    }

    /// Whether the prompt has one of these comma-separated terms and the negative prompt does not.
    pub(crate) fn mentions(&self, terms: &str) -> bool {
        count_terms(terms, &self.words, &self.unwanted) > 0
    }

    /// Whether the negative prompt has one of these comma-separated terms.
    pub(crate) fn shuns(&self, terms: &str) -> bool {
        count_terms(terms, &self.unwanted, "") > 0
    }
}

fn mood_of(genre: Genre) -> &'static Mood {
    MOODS.iter().find(|mood| mood.genre == genre).expect("every genre has a mood")
}

/// The words of a text in lower case, with one blank before and after each.
fn spaced_words(text: &str) -> String {
    let lower = text.to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric() && c != '-').filter(|w| !w.is_empty());
    words.fold(" ".to_owned(), |line, word| line + word + " ")
}

/// How many of some comma-separated terms are in `words` but not in `unwanted`.
fn count_terms(terms: &str, words: &str, unwanted: &str) -> usize {
    let has = |words: &str, term: &str| {
        // Chinese and Japanese put no blanks between words.
        let ideographic = term.starts_with(|c: char| c > '\u{3000}');
        (ideographic && words.contains(term))
            || words.contains(&format!(" {term} "))
            || words.contains(&format!(" {term}s "))
    };
    terms.split(',').filter(|term| has(words, term) && !has(unwanted, term)).count()
}

/// The first of those with the most points, if any has one.
fn best<T>(scores: impl Iterator<Item = (T, usize)>) -> Option<T> {
    let scored = scores.filter(|(_, score)| *score > 0);
    scored.reduce(|a, b| if b.1 > a.1 { b } else { a }).map(|(item, _)| item)
}
