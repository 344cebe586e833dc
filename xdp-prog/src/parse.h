/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * From a frame to the UDP packet in it, or to the reason why there is none for us.
 *
 * No byte is read that the frame does not hold, and a packet whose lengths claim more than the frame holds is
 * malformed. A frame longer than its packet is legal: Ethernet pads to 60 bytes.
 *
 * The headers are declared here because the kernel's `struct ethhdr` is packed, which costs a load per byte.
 */
#ifndef MIXMINUS_PARSE_H
#define MIXMINUS_PARSE_H

#include <bpf/bpf_endian.h>
#include "maps.h"

#define TYPE_IPV4 0x0800
#define TYPE_IPV6 0x86dd
#define TYPE_VLAN 0x8100
#define TYPE_SERVICE_VLAN 0x88a8

#define PROTOCOL_HOP_BY_HOP 0
#define PROTOCOL_UDP 17
#define PROTOCOL_ROUTING 43
#define PROTOCOL_FRAGMENT 44
#define PROTOCOL_ESP 50
#define PROTOCOL_AUTHENTICATION 51
#define PROTOCOL_DESTINATION_OPTIONS 60
#define PROTOCOL_MOBILITY 135
#define PROTOCOL_HOST_IDENTITY 139
#define PROTOCOL_SHIM6 140

/* RFC 791 3.1: "more fragments" and the fragment offset. */
#define IPV4_FRAGMENT_MASK 0x3fff

struct ethernet_header {
	__u8 destination[6];
	__u8 source[6];
	__be16 type;
};

struct vlan_tag {
	__be16 control;
	__be16 type;
};

struct ipv4_header {
	__u8 version_and_words;
	__u8 service;
	__be16 total_length;
	__be16 id;
	__be16 fragment;
	__u8 hops;
	__u8 protocol;
	__be16 checksum;
	__be32 source;
	__be32 destination;
};

struct ipv6_header {
	__u8 version_and_class;
	__u8 class_and_flow[3];
	__be16 payload_length;
	__u8 next_header;
	__u8 hops;
	__be32 source[4];
	__be32 destination[4];
};

struct udp_header {
	__be16 source;
	__be16 destination;
	__be16 length;
	__be16 checksum;
};

/* What a parsed frame holds. Addresses are filled word by word, hence the alignment. */
struct packet {
	struct address source __attribute__((aligned(8)));
	struct address destination __attribute__((aligned(8)));
	__u16 source_port;
	__u16 destination_port;
	__u16 payload_length;
	const __u8 *payload;
};

/* A parser's answer when it has found no reason to stop. */
#define UNDECIDED VERDICTS_MAX

static __always_inline void set_ipv4(struct address *address, __be32 ipv4)
{
	__u32 *words = (__u32 *)address;

	words[0] = 0;
	words[1] = 0;
	words[2] = bpf_htonl(0xffff);
	words[3] = ipv4;
}

static __always_inline void set_ipv6(struct address *address, const __be32 *ipv6)
{
	__u32 *words = (__u32 *)address;

	words[0] = ipv6[0];
	words[1] = ipv6[1];
	words[2] = ipv6[2];
	words[3] = ipv6[3];
}

/*
 * Moves a pointer by a constant, here and not elsewhere. Left to itself the compiler adds one of two constants out of a
 * register where paths join, which the verifier forbids to whoever lacks CAP_PERFMON.
 */
#define ADVANCE(pointer, bytes) asm volatile("%0 += " bytes : "+r"(pointer))

/* `available`: what the IP header says there is for UDP; it fits the frame. */
static __always_inline enum verdict parse_udp(const void *at, const void *end, __u32 available,
					      struct packet *packet)
{
	const struct udp_header *udp = at;
	__u32 length;

	if ((const void *)(udp + 1) > end)
		return VERDICT_PASS_MALFORMED;
	length = bpf_ntohs(udp->length);
	if (length < sizeof(*udp) || length > available)
		return VERDICT_PASS_MALFORMED;
	packet->source_port = bpf_ntohs(udp->source);
	packet->destination_port = bpf_ntohs(udp->destination);
	packet->payload_length = length - sizeof(*udp);
	packet->payload = (const __u8 *)(udp + 1);
	return UNDECIDED;
}

/* `available` here and below: bytes from `at` to the end of the frame. */
static __always_inline enum verdict parse_ipv4(const void *at, const void *end, __u32 available,
					       struct packet *packet)
{
	const struct ipv4_header *ip = at;
	const void *udp;
	__u32 header_length, total_length;

	if ((const void *)(ip + 1) > end || ip->version_and_words >> 4 != 4)
		return VERDICT_PASS_MALFORMED;
	header_length = (ip->version_and_words & 15) * 4;
	total_length = bpf_ntohs(ip->total_length);
	if (header_length < sizeof(*ip) || total_length < header_length || total_length > available)
		return VERDICT_PASS_MALFORMED;
	if (header_length > sizeof(*ip))
		return VERDICT_PASS_OPTIONS;
	if (ip->fragment & bpf_htons(IPV4_FRAGMENT_MASK))
		return VERDICT_PASS_FRAGMENT;
	if (ip->protocol != PROTOCOL_UDP)
		return VERDICT_PASS_NOT_UDP;
	set_ipv4(&packet->source, ip->source);
	set_ipv4(&packet->destination, ip->destination);
	udp = ip;
	ADVANCE(udp, "20");
	return parse_udp(udp, end, total_length - sizeof(*ip), packet);
}

static __always_inline enum verdict parse_ipv6(const void *at, const void *end, __u32 available,
					       struct packet *packet)
{
	const struct ipv6_header *ip = at;
	const void *udp;
	__u32 payload_length;

	if ((const void *)(ip + 1) > end || ip->version_and_class >> 4 != 6)
		return VERDICT_PASS_MALFORMED;
	payload_length = bpf_ntohs(ip->payload_length);
	if (sizeof(*ip) + payload_length > available)
		return VERDICT_PASS_MALFORMED;
	switch (ip->next_header) {
	case PROTOCOL_UDP:
		break;
	case PROTOCOL_FRAGMENT:
		return VERDICT_PASS_FRAGMENT;
	case PROTOCOL_HOP_BY_HOP:
	case PROTOCOL_ROUTING:
	case PROTOCOL_ESP:
	case PROTOCOL_AUTHENTICATION:
	case PROTOCOL_DESTINATION_OPTIONS:
	case PROTOCOL_MOBILITY:
	case PROTOCOL_HOST_IDENTITY:
	case PROTOCOL_SHIM6:
		return VERDICT_PASS_OPTIONS;
	default:
		return VERDICT_PASS_NOT_UDP;
	}
	set_ipv6(&packet->source, ip->source);
	set_ipv6(&packet->destination, ip->destination);
	udp = ip;
	ADVANCE(udp, "40");
	return parse_udp(udp, end, payload_length, packet);
}

/* Goes behind a VLAN tag if there is one; false when the frame ends in it. */
static __always_inline int skip_vlan_tag(const void **at, const void *end, __u32 *available, __be16 *type)
{
	const struct vlan_tag *tag = *at;

	if (*type != bpf_htons(TYPE_VLAN) && *type != bpf_htons(TYPE_SERVICE_VLAN))
		return 1;
	if ((const void *)(tag + 1) > end)
		return 0;
	*type = tag->type;
	*at = tag + 1;
	*available -= sizeof(*tag);
	return 1;
}

/*
 * The frame's length comes from the helper: taking it from `data` and `data_end`, or adding a length to a packet
 * pointer, is arithmetic that the verifier allows with CAP_PERFMON only, and the mixer does without.
 */
static __always_inline enum verdict parse_frame(struct xdp_md *ctx, struct packet *packet)
{
	__u32 available = bpf_xdp_get_buff_len(ctx);
	const void *at = (const void *)(long)ctx->data;
	const void *end = (const void *)(long)ctx->data_end;
	const struct ethernet_header *ethernet = at;
	__be16 type;

	if ((const void *)(ethernet + 1) > end)
		return VERDICT_PASS_MALFORMED;
	type = ethernet->type;
	at = ethernet + 1;
	available -= sizeof(*ethernet);
	/* Two tags at most: with a third, the type is no IP. */
	if (!skip_vlan_tag(&at, end, &available, &type) || !skip_vlan_tag(&at, end, &available, &type))
		return VERDICT_PASS_MALFORMED;
	if (type == bpf_htons(TYPE_IPV4))
		return parse_ipv4(at, end, available, packet);
	if (type == bpf_htons(TYPE_IPV6))
		return parse_ipv6(at, end, available, packet);
	return VERDICT_PASS_NOT_IP;
}

#endif
