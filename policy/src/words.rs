//! The PGP word list: octets as words that are hard to mishear, so that two officers can compare
//! a hash by voice.
//!
//! Patrick Juola and Philip Zimmermann chose the words in 1995 for their distance in sound; the
//! spelling here is that of the list's revision of 1998. Octets at even positions are said with
//! two-syllable words, those at odd positions with three-syllable ones: a word that was left out,
//! said twice or exchanged with its neighbour is heard.

use std::fmt::Write;

/// Words in a line of [`words`]: a hash of 32 octets takes eight lines, each short enough to be
/// said and repeated in one breath. Even, so that every line begins with a two-syllable word.
const WORDS_A_LINE: usize = 4;

/// The longest two-syllable and three-syllable words, in letters: the columns of [`words`].
const COLUMNS: [usize; 2] = [9, 11];

/// For octets at even positions, and for those at odd ones.
const LISTS: [[&str; 256]; 2] = [split(TWO_SYLLABLES), split(THREE_SYLLABLES)];

/// The words of `bytes`, four a line in columns, without a newline at the end.
pub fn words(bytes: &[u8]) -> String {
    let lines: Vec<String> = bytes
        .chunks(WORDS_A_LINE)
        .map(|line| {
            let mut text = String::new();
            for (at, byte) in line.iter().enumerate() {
                let column = COLUMNS[at % 2] + 1;
                let _ = write!(text, "{:column$}", LISTS[at % 2][usize::from(*byte)]);
            }
            text.truncate(text.trim_end().len());
            text
        })
        .collect();
    lines.join("\n")
}

/// The words of a text that has one space between words; another number than 256 does not
/// compile.
const fn split(text: &str) -> [&str; 256] {
    let mut list = [""; 256];
    let (mut rest, mut count) = (text, 0);
    while !rest.is_empty() {
        let mut end = 0;
        while end < rest.len() && rest.as_bytes()[end] != b' ' {
            end += 1;
        }
        let (word, tail) = rest.split_at(end);
        list[count] = word;
        count += 1;
        rest = if tail.is_empty() { tail } else { tail.split_at(1).1 };
    }
    assert!(count == 256, "a list has 256 words");
    list
}

const TWO_SYLLABLES: &str = "\
    aardvark absurd accrue acme adrift adult afflict ahead aimless Algol allow alone ammo \
    ancient apple artist assume Athens atlas Aztec baboon backfield backward banjo beaming \
    bedlamp beehive beeswax befriend Belfast berserk billiard bison blackjack blockade blowtorch \
    bluebird bombast bookshelf brackish breadline breakup brickyard briefcase Burbank button \
    buzzard cement chairlift chatter checkup chisel choking chopper Christmas clamshell classic \
    classroom cleanup clockwork cobra commence concert cowbell crackdown cranky crowfoot crucial \
    crumpled crusade cubic dashboard deadbolt deckhand dogsled dragnet drainage dreadful drifter \
    dropper drumbeat drunken Dupont dwelling eating edict egghead eightball endorse endow enlist \
    erase escape exceed eyeglass eyetooth facial fallout flagpole flatfoot flytrap fracture \
    framework freedom frighten gazelle Geiger glitter glucose goggles goldfish gremlin guidance \
    hamlet highchair hockey indoors indulge inverse involve island jawbone keyboard kickoff kiwi \
    klaxon locale lockup merit minnow miser Mohawk mural music necklace Neptune newborn \
    nightbird Oakland obtuse offload optic orca payday peachy pheasant physique playhouse Pluto \
    preclude prefer preshrunk printer prowler pupil puppy python quadrant quiver quota ragtime \
    ratchet rebirth reform regain reindeer rematch repay retouch revenge reward rhythm ribcage \
    ringbolt robust rocker ruffled sailboat sawdust scallion scenic scorecard Scotland seabird \
    select sentence shadow shamrock showgirl skullcap skydive slingshot slowdown snapline \
    snapshot snowcap snowslide solo southward soybean spaniel spearhead spellbind spheroid \
    spigot spindle spyglass stagehand stagnate stairway standard stapler steamship sterling \
    stockman stopwatch stormy sugar surmount suspense sweatband swelter tactics talon tapeworm \
    tempest tiger tissue tonic topmost tracker transit trauma treadmill Trojan trouble tumor \
    tunnel tycoon uncut unearth unwind uproot upset upshot vapor village virus Vulcan waffle \
    wallet watchword wayside willow woodlark Zulu";

const THREE_SYLLABLES: &str = "\
    adroitness adviser aftermath aggregate alkali almighty amulet amusement antenna applicant \
    Apollo armistice article asteroid Atlantic atmosphere autopsy Babylon backwater barbecue \
    belowground bifocals bodyguard bookseller borderline bottomless Bradbury bravado Brazilian \
    breakaway Burlington businessman butterfat Camelot candidate cannonball Capricorn caravan \
    caretaker celebrate cellulose certify chambermaid Cherokee Chicago clergyman coherence \
    combustion commando company component concurrent confidence conformist congregate consensus \
    consulting corporate corrosion councilman crossover crucifix cumbersome customer Dakota \
    decadence December decimal designing detector detergent determine dictator dinosaur \
    direction disable disbelief disruptive distortion document embezzle enchanting enrollment \
    enterprise equation equipment escapade Eskimo everyday examine existence exodus fascinate \
    filament finicky forever fortitude frequency gadgetry Galveston getaway glossary gossamer \
    graduate gravity guitarist hamburger Hamilton handiwork hazardous headwaters hemisphere \
    hesitate hideaway holiness hurricane hydraulic impartial impetus inception indigo inertia \
    infancy inferno informant insincere insurgent integrate intention inventive Istanbul Jamaica \
    Jupiter leprosy letterhead liberty maritime matchmaker maverick Medusa megaton microscope \
    microwave midsummer millionaire miracle misnomer molasses molecule Montana monument mosquito \
    narrative nebula newsletter Norwegian October Ohio onlooker opulent Orlando outfielder \
    Pacific pandemic Pandora paperweight paragon paragraph paramount passenger pedigree Pegasus \
    penetrate perceptive performance pharmacy phonetic photograph pioneer pocketful politeness \
    positive potato processor provincial proximate puberty publisher pyramid quantity racketeer \
    rebellion recipe recover repellent replica reproduce resistor responsive retraction \
    retrieval retrospect revenue revival revolver sandalwood sardonic Saturday savagery \
    scavenger sensation sociable souvenir specialist speculate stethoscope stupendous supportive \
    surrender suspicious sympathy tambourine telephone therapist tobacco tolerance tomorrow \
    torpedo tradition travesty trombonist truncated typewriter ultimate undaunted underfoot \
    unicorn unify universe unravel upcoming vacancy vagabond vertigo Virginia visitor vocalist \
    voyager warranty Waterloo whimsical Wichita Wilmington Wyoming yesteryear Yucatan";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::key::from_hex;
    use crate::tree::Hash;

    #[track_caller]
    fn check(hex: &str, expect: &str) {
        assert_eq!(words(&from_hex(hex).expect("hex")), expect);
    }

    /// The fingerprint that the word list is commonly explained with.
    #[test]
    fn a_fingerprint_as_it_is_read_out() {
        check(
            "e58294f2e9a227486e8b061b31cc528fd7fa3f19",
            concat!(
                "topmost   Istanbul    Pluto     vagabond\n",
                "treadmill Pacific     brackish  dictator\n",
                "goldfish  Medusa      afflict   bravado\n",
                "chatter   revolver    Dupont    midsummer\n",
                "stopwatch whimsical   cowbell   bottomless"
            ),
        );
        check("", "");
        check("00", "aardvark");
        check("0000ffff", "aardvark  adroitness  Zulu      Yucatan");
    }

    /// One digest over the table, computed from another copy of it: magic-wormhole's, which was
    /// compared word by word with those of `hex2words` and `Crypt::OpenPGP`.
    #[test]
    fn the_table_is_the_published_one() {
        let all: Vec<&str> = LISTS.concat();
        assert_eq!(
            Hash::of(all.join("\n").as_bytes()).to_string(),
            "e9b7b0052233a74aa56724ed3f79c272036aed68d8f4c0856e833c8043b9ac62"
        );
    }

    #[test]
    fn every_word_is_one_octet_at_one_parity() {
        let all: BTreeSet<String> = LISTS.concat().iter().map(|w| w.to_lowercase()).collect();
        assert_eq!(all.len(), 512);
        for (list, column) in LISTS.iter().zip(COLUMNS) {
            assert_eq!(list.iter().map(|word| word.len()).max(), Some(column));
            assert!(list.iter().all(|word| word.bytes().all(|b| b.is_ascii_alphabetic())));
        }
    }
}
