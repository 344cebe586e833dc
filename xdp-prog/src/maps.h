/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The ABI between the XDP program and the mixer: maps, their keys and values, the verdicts.
 *
 * Its Rust twin is `xdp-prog/abi`; a test there reads this file and fails when the two differ. Keep one
 * declaration a line.
 */
#ifndef MIXMINUS_MAPS_H
#define MIXMINUS_MAPS_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

/* Receive queues that can have a socket. */
#define QUEUES_MAX 64
/* Media addresses of one machine. */
#define ADDRESSES_MAX 16
/* All UDP ports. */
#define PORTS_MAX 65536
/* Sources with a bucket; the one unused longest makes room. */
#define SOURCES_MAX 65536

/* What became of a packet. Every packet is counted under exactly one. */
enum verdict {
	VERDICT_PASS_MALFORMED,
	VERDICT_PASS_NOT_IP,
	VERDICT_PASS_OPTIONS,
	VERDICT_PASS_FRAGMENT,
	VERDICT_PASS_NOT_UDP,
	VERDICT_PASS_FOREIGN_ADDRESS,
	VERDICT_PASS_FOREIGN_PORT,
	VERDICT_PASS_NO_SOCKET,
	VERDICT_DROP_BUDGET,
	VERDICT_REDIRECT_RTP,
	VERDICT_REDIRECT_RTCP,
	VERDICT_REDIRECT_OTHER,
	VERDICTS_MAX,
};

/* An IPv6 address, or an IPv4 address as ::ffff:a.b.c.d, in network order. */
struct address {
	__u8 bytes[16];
};

/* budget_packets_per_second 0: no budget. A budget_burst of 0 counts as 1. */
struct settings {
	__u32 budget_packets_per_second;
	__u32 budget_burst;
};

/* Who sends: address as in struct address, UDP port in host order, pad is 0. */
struct source {
	__u8 bytes[16];
	__u16 port;
	__u16 pad;
};

/* Monotonic time of the last refill; tokens in billionths of a packet. */
struct bucket {
	__u64 refilled_at_ns;
	__u64 tokens;
};

/* Receive queue -> AF_XDP socket bound to that very queue; the kernel drops what reaches another one. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, QUEUES_MAX);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

/* Destination addresses that are ours; the value means nothing. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ADDRESSES_MAX);
	__type(key, struct address);
	__type(value, __u8);
} addresses SEC(".maps");

/* UDP port in host order -> 0: not live; n + 1: live, owned by worker n. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PORTS_MAX);
	__type(key, __u32);
	__type(value, __u32);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SOURCES_MAX);
	__type(key, struct source);
	__type(value, struct bucket);
} sources SEC(".maps");

/* enum verdict -> packets. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, VERDICTS_MAX);
	__type(key, __u32);
	__type(value, __u64);
} verdicts SEC(".maps");

/* Receive queue -> packets redirected; less what its socket counts, they were lost on the way. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, QUEUES_MAX);
	__type(key, __u32);
	__type(value, __u64);
} redirected SEC(".maps");

#endif
