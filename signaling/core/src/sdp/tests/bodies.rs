//! Bodies as devices write them.

use super::*;

/// Name, body, and the answer's live m-line or the refusal's Warning code.
const DEVICES: [(&str, &str, Result<&str, u16>); 13] = [
    (
        "sipp uac",
        "v=0\r\no=user1 53655765 2353687637 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=audio 6000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n",
        Ok("m=audio 20000 RTP/AVP 0"),
    ),
    (
        "baresip",
        "v=0\r\no=- 3942 1791 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\na=tool:baresip 1.0.0\r\n\
         m=audio 23456 RTP/AVP 96 9 0 8 101\r\na=rtpmap:96 opus/48000/2\r\n\
         a=fmtp:96 stereo=1;sprop-stereo=1\r\na=rtpmap:9 G722/8000\r\na=rtpmap:0 PCMU/8000\r\n\
         a=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=rtcp:23457\r\n\
         a=sendrecv\r\na=label:1\r\na=rtcp-rsize\r\na=ssrc:2913 cname:sip:a@b\r\na=ptime:20\r\na=minptime:10\r\n",
        Ok("m=audio 20000 RTP/AVP 0 8 101"),
    ),
    (
        "linphone with video and AVPF",
        "v=0\r\no=alice 1183 2961 IN IP4 192.168.1.23\r\ns=Talk\r\nc=IN IP4 192.168.1.23\r\nb=AS:380\r\nt=0 0\r\n\
         a=rtcp-xr:rcvr-rtt=all:10000 stat-summary=loss,dup,jitt,TTL voip-metrics\r\na=record:off\r\n\
         m=audio 7078 RTP/AVPF 96 97 98 0 8 18 101 99 100\r\na=rtpmap:96 opus/48000/2\r\n\
         a=fmtp:96 useinbandfec=1\r\na=rtpmap:97 speex/16000\r\na=fmtp:97 vbr=on\r\na=rtpmap:98 speex/8000\r\n\
         a=fmtp:98 vbr=on\r\na=fmtp:18 annexb=yes\r\na=rtpmap:101 telephone-event/48000\r\n\
         a=rtpmap:99 telephone-event/16000\r\na=rtpmap:100 telephone-event/8000\r\na=rtcp-fb:* trr-int 5000\r\n\
         a=rtcp-fb:* ccm tmmbr\r\nm=video 9078 RTP/AVPF 96\r\na=rtpmap:96 VP8/90000\r\n",
        Ok("m=audio 20000 RTP/AVPF 0 8 100"),
    ),
    (
        "Asterisk",
        "v=0\r\no=- 1163457891 1163457891 IN IP4 10.0.0.2\r\ns=Asterisk\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\n\
         m=audio 11928 RTP/AVP 8 0 3 111 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\n\
         a=rtpmap:3 GSM/8000\r\na=rtpmap:111 G726-32/8000\r\na=rtpmap:101 telephone-event/8000\r\n\
         a=fmtp:101 0-16\r\na=ptime:20\r\na=maxptime:150\r\na=sendrecv\r\n",
        Ok("m=audio 20000 RTP/AVP 8 0 101"),
    ),
    (
        "carrier border element, mobile codecs first",
        "v=0\r\no=SBC 18446744073709551999 18446744073709551999 IN IP4 203.0.113.77\r\ns=sip call\r\n\
         c=IN IP4 203.0.113.77\r\nb=AS:80\r\nb=RS:600\r\nb=RR:2000\r\nt=0 0\r\na=sendrecv\r\n\
         m=audio 30122 RTP/AVP 104 102 9 8 0 105 100\r\nb=AS:80\r\na=rtpmap:104 AMR-WB/16000/1\r\n\
         a=fmtp:104 mode-change-capability=2;max-red=0\r\na=rtpmap:102 AMR/8000/1\r\n\
         a=fmtp:102 mode-set=0,2,4,7;mode-change-period=2\r\na=rtpmap:105 telephone-event/16000\r\n\
         a=fmtp:105 0-15\r\na=rtpmap:100 telephone-event/8000\r\na=fmtp:100 0-15\r\na=ptime:20\r\na=maxptime:240\r\n",
        Ok("m=audio 20000 RTP/AVP 8 0 100"),
    ),
    (
        "Cisco gateway",
        "v=0\r\no=CiscoSystemsSIP-GW-UserAgent 8021 1163 IN IP4 10.1.1.1\r\ns=SIP Call\r\nc=IN IP4 10.1.1.1\r\n\
         t=0 0\r\nm=audio 17134 RTP/AVP 18 0 8 101 19\r\nc=IN IP4 10.1.1.1\r\na=rtpmap:18 G729/8000\r\n\
         a=fmtp:18 annexb=no\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n\
         a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=rtpmap:19 CN/8000\r\na=ptime:20\r\n",
        Ok("m=audio 20000 RTP/AVP 0 8 101"),
    ),
    (
        "OCS mediation server",
        "v=0\r\no=- 0 0 IN IP4 192.0.2.60\r\ns=session\r\nc=IN IP4 192.0.2.60\r\nb=CT:1000\r\nt=0 0\r\n\
         m=audio 60514 RTP/AVP 97 111 115 8 0 13 118 101\r\na=rtcp:60515\r\na=label:Audio\r\na=rtpmap:97 RED/8000\r\n\
         a=rtpmap:111 SIREN/16000\r\na=fmtp:111 bitrate=16000\r\na=rtpmap:115 x-msrta/8000\r\n\
         a=rtpmap:118 CN/16000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\n",
        Ok("m=audio 20000 RTP/AVP 8 0 101"),
    ),
    (
        "phone with latin-1 in its session name and a private line",
        "v=0\no=Telefon 1 1 IN IP4 192.0.2.5\ns=Anruf f\u{fc}r Sie\nc=IN IP4 192.0.2.5\nt=0 0\n\
         m=audio 5004 RTP/AVP 8 2 4\na=rtpmap:8 PCMA/8000\na=X-nat:0\na=direction:active\na=oldmediaip:192.0.2.5",
        Ok("m=audio 20000 RTP/AVP 8"),
    ),
    (
        "pjsua, everything it has",
        "v=0\r\no=- 3770000000 3770000000 IN IP6 2001:db8::5\r\ns=pjmedia\r\nb=AS:84\r\nt=0 0\r\na=X-nat:0\r\n\
         m=audio 4000 RTP/AVP 98 97 99 104 3 0 8 9 96 120 121\r\nc=IN IP6 2001:db8::5\r\nb=TIAS:64000\r\n\
         a=rtcp:4001 IN IP6 2001:db8::5\r\na=sendrecv\r\na=rtpmap:98 speex/16000\r\na=rtpmap:97 speex/8000\r\n\
         a=rtpmap:99 speex/32000\r\na=rtpmap:104 iLBC/8000\r\na=fmtp:104 mode=30\r\na=rtpmap:96 opus/48000/2\r\n\
         a=rtpmap:120 telephone-event/16000\r\na=fmtp:120 0-16\r\na=rtpmap:121 telephone-event/8000\r\n\
         a=fmtp:121 0-16\r\na=ssrc:1234 cname:1234\r\n",
        Ok("m=audio 20000 RTP/AVP 0 8 121"),
    ),
    (
        "browser",
        "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
         a=msid-semantic: WMS *\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111 0 8 110 126\r\nc=IN IP4 0.0.0.0\r\n\
         a=rtcp:9 IN IP4 0.0.0.0\r\na=ice-ufrag:F7gI\r\na=fingerprint:sha-256 49:66\r\na=setup:actpass\r\n\
         a=mid:0\r\na=sendrecv\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n",
        Err(302),
    ),
    (
        "gateway offering secure and plain audio",
        "v=0\r\no=- 5 5 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\nm=audio 4000 RTP/SAVP 8\r\n\
         a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz|2^20|1:4\r\n\
         m=audio 4000 RTP/AVP 8\r\n",
        Ok("m=audio 20000 RTP/AVP 8"),
    ),
    (
        "wideband only",
        "v=0\r\no=- 5 5 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\nm=audio 4000 RTP/AVP 9 104\r\n\
         a=rtpmap:9 G722/8000\r\na=rtpmap:104 AMR-WB/16000\r\n",
        Err(305),
    ),
    (
        "name in c=",
        "v=0\r\no=- 5 5 IN IP4 pc33.example.com\r\ns=-\r\nc=IN IP4 pc33.example.com\r\nt=0 0\r\n\
         m=audio 49172 RTP/AVP 0\r\n",
        Err(301),
    ),
];

#[test]
fn devices_get_the_answer_they_need() {
    for (name, text, expected) in DEVICES {
        // Latin-1, not UTF-8, is what such devices put on the wire.
        let bytes: Vec<u8> = text
            .chars()
            .map(|character| u8::try_from(character).unwrap())
            .collect();
        let result = plan(&Offer::parse(&bytes).unwrap(), Occasion::First);
        let lines = result.as_ref().map(answered);
        let live = lines.as_ref().map(|text| {
            let live: Vec<_> = m_lines(text)
                .into_iter()
                .filter(|line| !line.contains(" 0 RTP"))
                .collect();
            assert_eq!(live.len(), 1, "{name}");
            live[0]
        });
        assert_eq!(live.map_err(|refusal| refusal.warning), expected, "{name}");
    }
}

#[test]
fn the_same_offer_always_gets_the_same_answer() {
    for (name, text, _) in DEVICES {
        let once = plan(&parsed(text), Occasion::First);
        assert_eq!(once, plan(&parsed(text), Occasion::First), "{name}");
        let Ok(once) = once else { continue };
        let mut session = LocalSession::new(4);
        let first = session.answer(&once, local());
        let again = plan(&parsed(text), session.occasion()).unwrap();
        assert_eq!(session.answer(&again, local()), first, "{name}");
        assert_eq!(
            LocalSession::restored_media(&first, text),
            Some(once.agreed),
            "{name}"
        );
    }
}

pub(super) fn texts() -> Vec<&'static str> {
    DEVICES.iter().map(|(_, text, _)| *text).collect()
}
