use proptest::prelude::*;

use super::*;

/// RFC 6962 §2.1, word for word.
fn mth(lines: &[Vec<u8>]) -> Hash {
    match lines {
        [] => Hash::of(&[]),
        [line] => Hash::of(&[&[0], &line[..]].concat()),
        _ => {
            let k = split(lines.len());
            let (left, right) = (mth(&lines[..k]), mth(&lines[k..]));
            Hash::of(&[&[1][..], &left.0, &right.0].concat())
        }
    }
}

/// "The largest power of two smaller than n."
fn split(n: usize) -> usize {
    (0..63).map(|e| 1 << e).take_while(|k| *k < n).last().expect("n > 1")
}

/// RFC 6962 §2.1.1: PATH(m, D[n]).
fn path(m: usize, lines: &[Vec<u8>]) -> Vec<Hash> {
    if lines.len() == 1 {
        return Vec::new();
    }
    let k = split(lines.len());
    let (mut path, other) = if m < k {
        (path(m, &lines[..k]), mth(&lines[k..]))
    } else {
        (path(m - k, &lines[k..]), mth(&lines[..k]))
    };
    path.push(other);
    path
}

fn numbered(n: usize) -> Vec<Vec<u8>> {
    (0..n).map(|i| format!("line {i}").into_bytes()).collect()
}

fn tree(lines: &[Vec<u8>]) -> Tree {
    let mut tree = Tree::new();
    for line in lines {
        tree.push(line);
    }
    tree
}

fn head(tree: &Tree, size: usize) -> TreeHead {
    TreeHead { size: size as u64, root: tree.root_at(size as u64).expect("size") }
}

/// The eight leaves that Certificate Transparency's implementations test with.
#[test]
fn roots_of_certificate_transparency() {
    let leaves = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ];
    let roots = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    let mut tree = Tree::new();
    assert_eq!(tree.head().to_string(), format!("0 {}", roots[0]));
    for (leaf, root) in leaves.iter().zip(&roots[1..]) {
        tree.push(&from_hex(leaf).expect("hex"));
        assert_eq!(tree.head().root.to_string(), *root);
    }
    for (size, root) in roots.iter().enumerate() {
        assert_eq!(tree.root_at(size as u64), root.parse().ok());
    }
    assert_eq!(tree.root_at(9), None);
}

#[test]
fn every_small_tree_is_the_naive_one_and_proves_itself() {
    let lines = numbered(70);
    let tree = tree(&lines);
    for to in 0..=lines.len() {
        let newer = head(&tree, to);
        assert_eq!(newer.root, mth(&lines[..to]));
        assert!(tree.contains(&newer));
        for index in 0..to {
            let proof = tree.inclusion(index as u64, to as u64).expect("proof");
            assert_eq!(proof, path(index, &lines[..to]));
            assert_eq!(verify_inclusion(&newer, index as u64, &lines[index], &proof), Ok(()));
        }
    }
}

/// The nothing that can be asked for.
#[test]
fn there_is_no_proof_of_what_is_not_there() {
    let lines = numbered(5);
    let tree = tree(&lines);
    assert_eq!(tree.inclusion(5, 5), None);
    assert_eq!(tree.inclusion(0, 6), None);
    let five = head(&tree, 5);
    assert_eq!(
        verify_inclusion(&five, 5, b"line 5", &[]),
        Err(ProofError::Outside { index: 5, size: 5 })
    );
    let wrong = |size| TreeHead { size, root: Hash([7; 32]) };
    assert!(!tree.contains(&wrong(3)) && !tree.contains(&wrong(6)));
}

/// The right root under another size: the hashes would lead there, but from the wrong height.
#[test]
fn a_proof_is_as_long_as_its_tree_is_high() {
    let lines = numbered(8);
    let tree = tree(&lines);
    let claim = |size, of| TreeHead { size, root: head(&tree, of).root };
    let proof = |size| tree.inclusion(0, size).expect("proof");
    let verify = |head, size| verify_inclusion(&head, 0, &lines[0], &proof(size));
    assert_eq!(verify(claim(2, 2), 2), Ok(()));
    assert_eq!(verify(claim(4, 2), 2), Err(ProofError::Length(1)));
    assert_eq!(verify(claim(2, 4), 4), Err(ProofError::Length(2)));
}

#[test]
fn clones_part_ways() {
    let lines = numbered(3 * CHUNK_HASHES + 7);
    let older = tree(&lines[..CHUNK_HASHES + 5]);
    let mut newer = older.clone();
    for line in &lines[CHUNK_HASHES + 5..] {
        newer.push(line);
    }
    assert_eq!(older.head().root, mth(&lines[..CHUNK_HASHES + 5]));
    assert_eq!(newer.head().root, mth(&lines));
    assert!(newer.contains(&older.head()));
    assert!(!older.contains(&newer.head()));
}

#[test]
fn a_head_has_one_text() {
    let head = tree(&numbered(12)).head();
    let text = head.to_string();
    assert_eq!(text.parse(), Ok(head));
    let json = serde_json::to_string(&head).expect("JSON");
    assert_eq!(json, format!(r#"{{"size":"12","root":"{}"}}"#, head.root));
    assert_eq!(serde_json::from_str::<TreeHead>(&json).expect("head"), head);
    for wrong in [
        text.replacen("12", "012", 1),
        text.replacen("12", "+12", 1),
        text.replacen("12", "", 1),
        text.replacen("12", "18446744073709551616", 1),
        text.replacen(' ', "  ", 1),
        text.to_uppercase(),
        format!("{text}\n"),
        format!("{text}0"),
        text[..text.len() - 1].to_owned(),
        format!(" {text}"),
    ] {
        assert_eq!(wrong.parse::<TreeHead>(), Err(TreeHeadError), "{wrong}");
    }
    for wrong in [json.replacen("12", "012", 1), json.replacen(r#""12""#, "12", 1)] {
        assert!(serde_json::from_str::<TreeHead>(&wrong).is_err(), "{wrong}");
    }
}

/// One change to a proof: a bit of a hash, a hash more, a hash less, or two exchanged.
#[derive(Debug, Clone)]
enum Change {
    Flip(usize, u8),
    Insert(usize, Hash),
    Remove(usize),
    Swap(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, bit)| Change::Flip(at, bit)),
        (any::<usize>(), any::<[u8; 32]>()).prop_map(|(at, h)| Change::Insert(at, Hash(h))),
        any::<usize>().prop_map(Change::Remove),
        (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Change::Swap(a, b)),
    ]
}

impl Change {
    fn apply(&self, proof: &[Hash]) -> Vec<Hash> {
        let (mut proof, len) = (proof.to_vec(), proof.len());
        match *self {
            Self::Insert(at, hash) => proof.insert(at % (len + 1), hash),
            _ if len == 0 => {}
            Self::Flip(at, bit) => {
                proof[at % len].0[usize::from(bit >> 3)] ^= 1 << (bit & 7);
            }
            Self::Remove(at) => drop(proof.remove(at % len)),
            Self::Swap(a, b) => proof.swap(a % len, b % len),
        }
        proof
    }
}

proptest! {
    #[test]
    fn random_trees_are_naive_ones(
        lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..300),
        (to, index) in any::<(prop::sample::Index, prop::sample::Index)>(),
        change in change(),
        bit in any::<u8>(),
    ) {
        let tree = tree(&lines);
        let to = 1 + to.index(lines.len());
        let index = index.index(to);
        let newer = head(&tree, to);
        prop_assert_eq!(newer.root, mth(&lines[..to]));
        let line = &lines[index];
        let index = index as u64;

        let proof = tree.inclusion(index, newer.size).expect("proof");
        prop_assert_eq!(verify_inclusion(&newer, index, line, &proof), Ok(()));
        let mutated = change.apply(&proof);
        if mutated != proof {
            prop_assert!(verify_inclusion(&newer, index, line, &mutated).is_err());
        }
        let other = [&line[..], b"!"].concat();
        prop_assert!(verify_inclusion(&newer, index, &other, &proof).is_err());
        let mut forged = newer;
        forged.root.0[usize::from(bit >> 3)] ^= 1 << (bit & 7);
        prop_assert!(verify_inclusion(&forged, index, line, &proof).is_err());
        prop_assert!(!tree.contains(&forged));
    }

    /// No history but the own one is a prefix.
    #[test]
    fn an_edited_line_is_inconsistent(n in 2..200_usize, at in any::<prop::sample::Index>(), from in any::<prop::sample::Index>()) {
        let mut lines = numbered(n);
        let honest = tree(&lines);
        let from = 1 + from.index(n);
        let at = at.index(from);
        lines[at].push(b'x');
        let edited = tree(&lines);
        prop_assert!(!edited.contains(&head(&honest, from)));
    }
}
