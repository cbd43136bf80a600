//! The cryptography of a leaf link: `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s` by the crate `snow`.
//!
//! This is the construction of WireGuard (Donenfeld, NDSS 2017) in the Noise Protocol Framework, revision 34: the leaf
//! knows the host's public key and sends its own under it in the first message; the pre-shared key goes into the second,
//! so who does not know it can finish no handshake. Both messages end in a keyed hash as WireGuard's `mac1`: it costs
//! nothing to see that somebody does not even know whom he speaks to.
//!
//! Random numbers come from [`Entropy`] alone, never from the system.

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec;

use curve25519_dalek::constants::X25519_BASEPOINT;
use curve25519_dalek::montgomery::MontgomeryPoint;
use snow::params::{
    BaseChoice, CipherChoice, DHChoice, HandshakeChoice, HandshakeModifier, HandshakeModifierList,
    HandshakePattern, HashChoice, NoiseParams,
};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState, StatelessTransportState};
use zeroize::{Zeroize, Zeroizing};

use super::{Admission, PublicKey, SecretKey};

const PROTOCOL: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
/// What the prologue begins with; the id of the mesh follows.
const PROLOGUE: &[u8; 14] = b"mielin leaf 1\0";
/// The place of the pre-shared key in the pattern.
const PSK_PLACE: u8 = 2;
/// Bytes that authenticate a ciphertext.
pub(super) const TAG_BYTES: usize = 16;
/// Bytes that a first message adds to its payload: ephemeral key, encrypted static key with its tag, tag.
pub(super) const FIRST_BYTES: usize = 32 + 32 + 2 * TAG_BYTES;
/// Bytes that a second message adds to its payload: ephemeral key, tag.
pub(super) const SECOND_BYTES: usize = 32 + TAG_BYTES;
/// Bytes of the keyed hash under both.
pub(super) const MAC_BYTES: usize = 8;

/// A message that is not genuine, or for another key or mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotGenuine;

/// A source of random bytes that begins with 32 which nobody can guess.
///
/// Each draw replaces the state by a hash of itself, so that an earlier draw cannot be found from a later state.
pub(super) struct Entropy([u8; 32]);

impl Entropy {
    pub(super) const fn new(seed: [u8; 32]) -> Entropy {
        Entropy(seed)
    }

    pub(super) fn draw(&mut self) -> [u8; 32] {
        let drawn = hmac(&self.0, b"draw");
        self.0 = hmac(&self.0, b"next");
        drawn
    }

    pub(super) fn draw_u64(&mut self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.draw();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    pub(super) fn draw_u32(&mut self) -> u32 {
        let [a, b, c, d, ..] = self.draw();
        u32::from_le_bytes([a, b, c, d])
    }
}

impl Drop for Entropy {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// The keyed hash under a handshake message for the holder of `receiver`.
pub(super) fn mac(receiver: &PublicKey, message: &[u8]) -> [u8; MAC_BYTES] {
    let [a, b, c, d, e, f, g, h, ..] = hmac(&receiver.0, message);
    [a, b, c, d, e, f, g, h]
}

/// The public half of an X25519 key.
pub(super) fn public_key(secret: &[u8; 32]) -> [u8; 32] {
    X25519_BASEPOINT.mul_clamped(*secret).to_bytes()
}

/// HMAC-BLAKE2s, as Noise has it.
fn hmac(key: &[u8; 32], data: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hasher().hmac(key, data, &mut hash);
    hash
}

fn hasher() -> Box<dyn Hash> {
    DefaultResolver
        .resolve_hash(&HashChoice::Blake2s)
        .expect("the feature is on")
}

/// The primitives of the one protocol that is spoken here, and an ephemeral key that is already drawn. They do not
/// look at what is asked for, so that the linker leaves out what never is.
struct Suite {
    ephemeral: Zeroizing<[u8; 32]>,
}

impl CryptoResolver for Suite {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Ephemeral(Some(self.ephemeral.clone()))))
    }

    fn resolve_dh(&self, _: &DHChoice) -> Option<Box<dyn Dh>> {
        Some(Box::<Curve25519>::default())
    }

    fn resolve_hash(&self, _: &HashChoice) -> Option<Box<dyn Hash>> {
        Some(hasher())
    }

    fn resolve_cipher(&self, _: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(&CipherChoice::ChaChaPoly)
    }
}

/// X25519 (RFC 7748, section 5) by the Montgomery ladder alone. snow's own finds public keys on the Edwards form of the curve,
/// of which nothing else is needed here; and it does not wipe its secrets.
#[derive(Default)]
struct Curve25519 {
    secret: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

impl Dh for Curve25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, secret: &[u8]) {
        self.secret.copy_from_slice(secret);
        self.public = public_key(&self.secret);
    }

    fn generate(&mut self, random: &mut dyn Random) -> Result<(), snow::Error> {
        random.try_fill_bytes(&mut *self.secret)?;
        self.public = public_key(&self.secret);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &*self.secret
    }

    fn dh(&self, public: &[u8], shared: &mut [u8]) -> Result<(), snow::Error> {
        let point = public.first_chunk().ok_or(snow::Error::Dh)?;
        let product = MontgomeryPoint(*point).mul_clamped(*self.secret);
        let to = shared.first_chunk_mut().ok_or(snow::Error::Dh)?;
        *to = product.to_bytes();
        Ok(())
    }
}

/// Gives out one key, once: all that a side draws in a handshake of this pattern.
struct Ephemeral(Option<Zeroizing<[u8; 32]>>);

impl Random for Ephemeral {
    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), snow::Error> {
        let key = self.0.take().ok_or(snow::Error::Rng)?;
        if to.len() != key.len() {
            return Err(snow::Error::Rng);
        }
        to.copy_from_slice(&*key);
        Ok(())
    }
}

fn builder(ephemeral: [u8; 32]) -> Builder<'static> {
    // Not parsed from its name, because a parser of all names would be in every firmware.
    let params = NoiseParams::new(
        PROTOCOL.to_string(),
        BaseChoice::Noise,
        HandshakeChoice {
            pattern: HandshakePattern::IK,
            modifiers: HandshakeModifierList {
                list: vec![HandshakeModifier::Psk(PSK_PLACE)],
            },
        },
        DHChoice::Curve25519,
        CipherChoice::ChaChaPoly,
        HashChoice::Blake2s,
    );
    let ephemeral = Zeroizing::new(ephemeral);
    Builder::with_resolver(params, Box::new(Suite { ephemeral }))
}

fn prologue(mesh: &[u8; 32]) -> [u8; 46] {
    let mut prologue = [0; 46];
    prologue[..PROLOGUE.len()].copy_from_slice(PROLOGUE);
    prologue[PROLOGUE.len()..].copy_from_slice(mesh);
    prologue
}

/// The leaf's side of a handshake that has begun.
pub(super) struct Initiator(HandshakeState);

impl Initiator {
    /// Begins a handshake, and writes its first message, [`FIRST_BYTES`] longer than the payload. Multiplies four times
    /// on the curve.
    pub(super) fn begin(
        key: &SecretKey,
        admission: &Admission,
        ephemeral: [u8; 32],
        payload: &[u8],
        message: &mut [u8],
    ) -> Initiator {
        let prologue = prologue(&admission.mesh);
        let mut state = builder(ephemeral)
            .local_private_key(key.as_bytes())
            .and_then(|builder| builder.remote_public_key(&admission.host.0))
            .and_then(|builder| builder.psk(PSK_PLACE, &admission.secret))
            .and_then(|builder| builder.prologue(&prologue))
            .and_then(Builder::build_initiator)
            .expect("all that the pattern needs is there, once");
        let written = state
            .write_message(payload, message)
            .expect("the buffer is as long as the message");
        debug_assert_eq!(written, message.len());
        Initiator(state)
    }

    /// Reads the second message and its payload. A message that is not genuine leaves the handshake as it was.
    pub(super) fn read_second(
        &mut self,
        message: &[u8],
        payload: &mut [u8],
    ) -> Result<(), NotGenuine> {
        if message.len() != payload.len() + SECOND_BYTES {
            return Err(NotGenuine);
        }
        let read = self.0.read_message(message, payload);
        read.map(drop).map_err(|_| NotGenuine)
    }

    /// The keys of the connection, after the second message.
    pub(super) fn finish(self) -> Keys {
        Keys::of(self.0)
    }
}

/// The host's side of a handshake of which the first message was read.
pub(super) struct Responder(HandshakeState);

impl Responder {
    /// Reads a first message and its payload. Multiplies three times on the curve.
    pub(super) fn read_first(
        key: &SecretKey,
        mesh: &[u8; 32],
        ephemeral: [u8; 32],
        message: &[u8],
        payload: &mut [u8],
    ) -> Result<Responder, NotGenuine> {
        if message.len() != payload.len() + FIRST_BYTES {
            return Err(NotGenuine);
        }
        let prologue = prologue(mesh);
        let mut state = builder(ephemeral)
            .local_private_key(key.as_bytes())
            .and_then(|builder| builder.prologue(&prologue))
            .and_then(Builder::build_responder)
            .expect("all that the pattern needs is there, once");
        match state.read_message(message, payload) {
            Ok(_) => Ok(Responder(state)),
            Err(_) => Err(NotGenuine),
        }
    }

    /// The leaf that speaks; it has not shown yet that it holds the pre-shared key, or that it speaks now.
    pub(super) fn leaf(&self) -> PublicKey {
        let key = self.0.get_remote_static().and_then(|k| k.try_into().ok());
        PublicKey(key.expect("a first message that was read has a key of 32 bytes"))
    }

    /// Writes the second message, [`SECOND_BYTES`] longer than the payload; the keys. Multiplies three times more.
    pub(super) fn answer(mut self, secret: &[u8; 32], payload: &[u8], message: &mut [u8]) -> Keys {
        self.0
            .set_psk(PSK_PLACE.into(), secret)
            .expect("the key is as long as it must be");
        let written = self
            .0
            .write_message(payload, message)
            .expect("the buffer is as long as the message");
        debug_assert_eq!(written, message.len());
        Keys::of(self.0)
    }
}

/// The two keys of a connection, one for each direction.
pub(super) struct Keys(StatelessTransportState);

impl Keys {
    fn of(state: HandshakeState) -> Keys {
        let keys = state.into_stateless_transport_mode();
        Keys(keys.expect("both messages have been exchanged"))
    }

    /// Seals `plain` under `counter`, which must never be used again, into [`TAG_BYTES`] more; how many that were.
    pub(super) fn seal(&self, counter: u32, plain: &[u8], sealed: &mut [u8]) -> usize {
        self.0
            .write_message(counter.into(), plain, sealed)
            .expect("the buffer is large enough, and a counter of 32 bits is not at its end")
    }

    /// Opens what the peer has sealed under `counter`; how many bytes that were.
    pub(super) fn open(
        &self,
        counter: u32,
        sealed: &[u8],
        plain: &mut [u8],
    ) -> Result<usize, NotGenuine> {
        let opened = self.0.read_message(counter.into(), sealed, plain);
        opened.map_err(|_| NotGenuine)
    }
}
