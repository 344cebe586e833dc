/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Redirects the media of live legs to the AF_XDP socket of the queue they arrive on; all else goes to the kernel.
 *
 * Invariants: every packet is counted under exactly one verdict; no byte of a packet is changed; nothing but the
 * optional budget drops. Rebuild with scripts/build-xdp: the mixer embeds the committed object.
 */
#include "maps.h"
#include "parse.h"

#define TOKENS_PER_PACKET 1000000000ULL
#define NS_PER_SECOND 1000000000ULL

/* XDP runs with softirqs off, so nothing else on this CPU can come between load and store. */
static __always_inline void count(void *counters, __u32 index)
{
	__u64 *counter = bpf_map_lookup_elem(counters, &index);

	if (counter)
		*counter += 1;
}

/*
 * Takes one packet out of the source's bucket; false when there is none left. Two queues that serve one source at
 * the same time may both take the same token: it is a budget against floods, not an account.
 */
static __always_inline int within_budget(const struct packet *packet)
{
	__u32 zero = 0;
	const struct settings *limits = bpf_map_lookup_elem(&settings, &zero);
	struct source source __attribute__((aligned(8))) = {};
	struct bucket *bucket;
	__u64 rate, full, now;

	if (!limits || !limits->budget_packets_per_second)
		return 1;
	rate = limits->budget_packets_per_second;
	full = (limits->budget_burst ? limits->budget_burst : 1) * TOKENS_PER_PACKET;
	now = bpf_ktime_get_ns();
	__builtin_memcpy(source.bytes, packet->source.bytes, sizeof(source.bytes));
	source.port = packet->source_port;
	bucket = bpf_map_lookup_elem(&sources, &source);
	if (!bucket) {
		struct bucket fresh = { .refilled_at_ns = now, .tokens = full - TOKENS_PER_PACKET };

		bpf_map_update_elem(&sources, &source, &fresh, BPF_ANY);
		return 1;
	}
	/* Another CPU may have refilled it a moment "later". */
	if (now > bucket->refilled_at_ns) {
		__u64 elapsed_ns = now - bucket->refilled_at_ns;

		/* A rate is tokens per ns. Below the time for a full bucket the product cannot overflow. */
		if (elapsed_ns >= full / rate)
			bucket->tokens = full;
		else
			bucket->tokens += elapsed_ns * rate;
		bucket->refilled_at_ns = now;
	}
	/* Also when the burst was lowered at run time. */
	if (bucket->tokens > full)
		bucket->tokens = full;
	if (bucket->tokens < TOKENS_PER_PACKET)
		return 0;
	bucket->tokens -= TOKENS_PER_PACKET;
	return 1;
}

/* RFC 7983 section 7: RTP and RTCP begin with 128 to 191. RFC 5761 section 4: RTCP goes on with 192 to 223. */
static __always_inline enum verdict kind(const struct packet *packet, const void *end)
{
	const __u8 *payload = packet->payload;

	if (packet->payload_length < 2 || (const void *)(payload + 2) > end)
		return VERDICT_REDIRECT_OTHER;
	if (payload[0] < 128 || payload[0] > 191)
		return VERDICT_REDIRECT_OTHER;
	if (payload[1] >= 192 && payload[1] <= 223)
		return VERDICT_REDIRECT_RTCP;
	return VERDICT_REDIRECT_RTP;
}

static __always_inline enum verdict judge(struct xdp_md *ctx)
{
	struct packet packet;
	enum verdict verdict = parse_frame(ctx, &packet);
	__u32 port, *owner;

	if (verdict != UNDECIDED)
		return verdict;
	if (!bpf_map_lookup_elem(&addresses, &packet.destination))
		return VERDICT_PASS_FOREIGN_ADDRESS;
	port = packet.destination_port;
	owner = bpf_map_lookup_elem(&ports, &port);
	if (!owner || !*owner)
		return VERDICT_PASS_FOREIGN_PORT;
	if (!within_budget(&packet))
		return VERDICT_DROP_BUDGET;
	verdict = kind(&packet, (const void *)(long)ctx->data_end);
	/* A queue beyond QUEUES_MAX has no slot, which is answered like an empty one. */
	if (bpf_redirect_map(&xsks, ctx->rx_queue_index, XDP_PASS) != XDP_REDIRECT)
		return VERDICT_PASS_NO_SOCKET;
	count(&redirected, ctx->rx_queue_index);
	return verdict;
}

SEC("xdp")
int mixminus(struct xdp_md *ctx)
{
	enum verdict verdict = judge(ctx);

	count(&verdicts, verdict);
	if (verdict >= VERDICT_REDIRECT_RTP)
		return XDP_REDIRECT;
	return verdict == VERDICT_DROP_BUDGET ? XDP_DROP : XDP_PASS;
}

char license_text[] SEC("license") = "MIT OR Apache-2.0";
