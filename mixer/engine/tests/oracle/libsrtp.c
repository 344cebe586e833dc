/* libsrtp as an oracle: protects or unprotects what it reads, packet by packet, in one session.
 *
 *   libsrtp protect|unprotect SUITE KEY      then lines "rtp HEX" or "rtcp HEX"; answers "HEX" or "error N"
 */
#include <srtp2/srtp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int from_hex(const char *text, unsigned char *bytes)
{
    int length = 0;
    unsigned value;
    while (sscanf(text + 2 * length, "%2x", &value) == 1)
        bytes[length++] = (unsigned char)value;
    return length;
}

static int set_suite(srtp_policy_t *policy, const char *suite)
{
    if (!strcmp(suite, "AesCm128HmacSha1Tag80")) {
        srtp_crypto_policy_set_aes_cm_128_hmac_sha1_80(&policy->rtp);
        srtp_crypto_policy_set_aes_cm_128_hmac_sha1_80(&policy->rtcp);
    } else if (!strcmp(suite, "AesCm128HmacSha1Tag32")) {
        srtp_crypto_policy_set_aes_cm_128_hmac_sha1_32(&policy->rtp);
        srtp_crypto_policy_set_aes_cm_128_hmac_sha1_80(&policy->rtcp);
    } else if (!strcmp(suite, "AesCm256HmacSha1Tag80")) {
        srtp_crypto_policy_set_aes_cm_256_hmac_sha1_80(&policy->rtp);
        srtp_crypto_policy_set_aes_cm_256_hmac_sha1_80(&policy->rtcp);
    } else if (!strcmp(suite, "AeadAes128Gcm")) {
        srtp_crypto_policy_set_aes_gcm_128_16_auth(&policy->rtp);
        srtp_crypto_policy_set_aes_gcm_128_16_auth(&policy->rtcp);
    } else if (!strcmp(suite, "AeadAes256Gcm")) {
        srtp_crypto_policy_set_aes_gcm_256_16_auth(&policy->rtp);
        srtp_crypto_policy_set_aes_gcm_256_16_auth(&policy->rtcp);
    } else {
        return -1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    static char line[8192];
    unsigned char key[64], packet[4096];
    srtp_policy_t policy;
    srtp_t session;

    memset(&policy, 0, sizeof policy);
    if (argc != 4 || set_suite(&policy, argv[2]) || srtp_init())
        return 64;
    int protects = !strcmp(argv[1], "protect");
    from_hex(argv[3], key);
    policy.key = key;
    policy.window_size = 128;
    policy.ssrc.type = protects ? ssrc_any_outbound : ssrc_any_inbound;
    if (srtp_create(&session, &policy))
        return 70;
    while (fgets(line, sizeof line, stdin)) {
        int is_rtp = !strncmp(line, "rtp ", 4);
        int length = from_hex(line + (is_rtp ? 4 : 5), packet);
        int status = protects ? (is_rtp ? srtp_protect(session, packet, &length) : srtp_protect_rtcp(session, packet, &length))
                              : (is_rtp ? srtp_unprotect(session, packet, &length) : srtp_unprotect_rtcp(session, packet, &length));
        if (status) {
            printf("error %d\n", status);
        } else {
            for (int n = 0; n < length; n++)
                printf("%02x", packet[n]);
            printf("\n");
        }
        fflush(stdout);
    }
    return 0;
}
