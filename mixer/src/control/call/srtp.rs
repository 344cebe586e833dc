//! Keys of SRTP: from the link's text to what the engine works with.

use mixer_control::media::Media;
use mixer_control::reply::Problem;
use mixer_control::srtp::{SrtpKey, SrtpSuite};
use mixer_engine::srtp::{MasterKey, Srtp, Suite};

use super::invalid;

/// The keys of a media description, derived; none for plain RTP.
///
/// # Errors
/// [`mixer_control::reply::ProblemKind::Invalid`], naming the field and never the key.
pub(crate) fn srtp_keys(media: &Media) -> Result<Option<Srtp>, Problem> {
    let Some(srtp) = &media.srtp else {
        return Ok(None);
    };
    let suite = suite(srtp.suite);
    let receive = master_key("media.srtp.receive_key", suite, &srtp.receive_key)?;
    let send = master_key("media.srtp.send_key", suite, &srtp.send_key)?;
    // One key for both ways would let what we send be decrypted with what the peer sends.
    if receive == send {
        return Err(invalid("media.srtp.send_key: must differ from receive_key"));
    }
    Ok(Some(Srtp::new(receive, send)))
}

fn master_key(field: &str, suite: Suite, key: &SrtpKey) -> Result<MasterKey, Problem> {
    let bytes = key
        .bytes()
        .ok_or_else(|| invalid(format!("{field}: is not base64")))?;
    MasterKey::new(suite, &bytes).map_err(|error| invalid(format!("{field}: {error}")))
}

fn suite(suite: SrtpSuite) -> Suite {
    match suite {
        SrtpSuite::AesCm128HmacSha1Tag80 => Suite::AesCm128HmacSha1Tag80,
        SrtpSuite::AesCm128HmacSha1Tag32 => Suite::AesCm128HmacSha1Tag32,
        SrtpSuite::AesCm256HmacSha1Tag80 => Suite::AesCm256HmacSha1Tag80,
        SrtpSuite::AeadAes128Gcm => Suite::AeadAes128Gcm,
        SrtpSuite::AeadAes256Gcm => Suite::AeadAes256Gcm,
    }
}
