//! That what is on the wire is the protocol with that name, by snow itself with nothing of ours around it.

use alloc::boxed::Box;

use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};

use super::{MESH, key};
use crate::leaf::noise::{FIRST_BYTES, Initiator, NotGenuine, Responder, SECOND_BYTES};
use crate::leaf::packet::{Answer, Hello};
use crate::leaf::{Admission, LeafNumber};

const NAME: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const SECRET: [u8; 32] = [9; 32];
const EPHEMERAL: [u8; 32] = [3; 32];
const HELLO: [u8; Hello::BYTES] = [0x11; Hello::BYTES];
const ANSWER: [u8; Answer::BYTES] = [0x22; Answer::BYTES];

fn admission() -> Admission {
    Admission {
        number: LeafNumber(1),
        mesh: MESH,
        host: key(1).public(),
        secret: SECRET,
    }
}

/// snow's own primitives, as asked for, without a source of random numbers: what is random a test names.
struct Bare;

impl CryptoResolver for Bare {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Bare))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

impl Random for Bare {
    fn try_fill_bytes(&mut self, _: &mut [u8]) -> Result<(), snow::Error> {
        Err(snow::Error::Rng)
    }
}

/// The leaf's side as snow's documentation has it.
fn bare_leaf() -> HandshakeState {
    let (leaf, host) = (key(2), key(1).public());
    let prologue = [&b"mielin leaf 1\0"[..], &MESH].concat();
    Builder::with_resolver(NAME.parse().unwrap(), Box::new(Bare))
        .fixed_ephemeral_key_for_testing_only(&EPHEMERAL)
        .local_private_key(leaf.as_bytes())
        .and_then(|builder| builder.remote_public_key(&host.0))
        .and_then(|builder| builder.psk(2, &SECRET))
        .and_then(|builder| builder.prologue(&prologue))
        .and_then(Builder::build_initiator)
        .unwrap()
}

#[test]
fn a_bare_leaf_speaks_with_our_host() {
    let mut leaf = bare_leaf();
    let mut first = [0; FIRST_BYTES + Hello::BYTES];
    leaf.write_message(&HELLO, &mut first).unwrap();
    let mut hello = [0; Hello::BYTES];
    let host = Responder::read_first(&key(1), &MESH, [4; 32], &first, &mut hello).unwrap();
    assert_eq!((hello, host.leaf()), (HELLO, key(2).public()));
    let mut second = [0; SECOND_BYTES + Answer::BYTES];
    let keys = host.answer(&SECRET, &ANSWER, &mut second);
    let mut answer = [0; Answer::BYTES];
    leaf.read_message(&second, &mut answer).unwrap();
    assert_eq!(answer, ANSWER);

    let leaf = leaf.into_stateless_transport_mode().unwrap();
    let (mut sealed, mut plain) = ([0; 21], [0; 5]);
    leaf.write_message(77, b"there", &mut sealed).unwrap();
    assert_eq!(keys.open(77, &sealed, &mut plain), Ok(5));
    assert_eq!(&plain, b"there");
    assert_eq!(keys.open(78, &sealed, &mut plain), Err(NotGenuine));
    keys.seal(5, b"back!", &mut sealed);
    leaf.read_message(5, &sealed, &mut plain).unwrap();
    assert_eq!(&plain, b"back!");
}

#[test]
fn our_leaf_writes_the_same_bytes_as_a_bare_one_and_survives_forged_answers() {
    let (mut ours, mut bare) = (
        [0; FIRST_BYTES + Hello::BYTES],
        [0; FIRST_BYTES + Hello::BYTES],
    );
    let mut leaf = Initiator::begin(&key(2), &admission(), EPHEMERAL, &HELLO, &mut ours);
    let mut bare_leaf = bare_leaf();
    bare_leaf.write_message(&HELLO, &mut bare).unwrap();
    assert_eq!(ours, bare);

    let mut hello = [0; Hello::BYTES];
    let mut second = [0; SECOND_BYTES + Answer::BYTES];
    let host = Responder::read_first(&key(1), &MESH, [4; 32], &ours, &mut hello).unwrap();
    let keys = host.answer(&SECRET, &ANSWER, &mut second);
    let mut answer = [0; Answer::BYTES];
    for index in 0..second.len() {
        let mut forged = second;
        forged[index] ^= 1;
        assert_eq!(leaf.read_second(&forged, &mut answer), Err(NotGenuine));
    }
    assert_eq!(leaf.read_second(&second[1..], &mut answer), Err(NotGenuine));
    assert_eq!(leaf.read_second(&second, &mut answer), Ok(()));
    assert_eq!(answer, ANSWER);
    let mut sealed = [0; 18];
    keys.seal(0, b"ok", &mut sealed);
    assert_eq!(leaf.finish().open(0, &sealed, &mut [0; 2]), Ok(2));
}

#[test]
fn everything_that_the_two_must_agree_on_matters() {
    let mut first = [0; FIRST_BYTES + Hello::BYTES];
    Initiator::begin(&key(2), &admission(), EPHEMERAL, &HELLO, &mut first);
    let read = |host: u8, mesh: &[u8; 32], first: &[u8]| {
        let mut hello = [0; Hello::BYTES];
        Responder::read_first(&key(host), mesh, [4; 32], first, &mut hello).map(|_| ())
    };
    assert_eq!(read(1, &MESH, &first), Ok(()));
    assert_eq!(read(3, &MESH, &first), Err(NotGenuine));
    assert_eq!(read(1, &[0; 32], &first), Err(NotGenuine));
    for index in 0..first.len() {
        let mut forged = first;
        forged[index] ^= 1;
        assert_eq!(read(1, &MESH, &forged), Err(NotGenuine), "{index}");
    }

    // Another secret shows in the second message.
    let mut leaf = Initiator::begin(&key(2), &admission(), EPHEMERAL, &HELLO, &mut first);
    let mut second = [0; SECOND_BYTES + Answer::BYTES];
    let mut hello = [0; Hello::BYTES];
    let host = Responder::read_first(&key(1), &MESH, [4; 32], &first, &mut hello).unwrap();
    host.answer(&[8; 32], &ANSWER, &mut second);
    assert_eq!(
        leaf.read_second(&second, &mut [0; Answer::BYTES]),
        Err(NotGenuine)
    );
}
