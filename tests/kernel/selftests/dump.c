/* Prints the tests of the kernel's test_verifier as text: one TEST line each, FIX lines that say which
 * instructions load which map, one CODE line with the instructions in hex.
 *
 * It includes test_verifier.c of tools/testing/selftests/bpf as it stands, for its table.
 */
#define u32 __u32
#define u64 __u64
#define main main_of_test_verifier
#include "test_verifier.c"
#undef main

int cap_enable_effective(__u64 caps, __u64 *old_caps) { return 0; }
int cap_disable_effective(__u64 caps, __u64 *old_caps) { return 0; }

#define MAPS(F) \
	F(map_hash_8b) F(map_hash_48b) F(map_hash_16b) F(map_array_48b) F(map_sockmap) \
	F(map_sockhash) F(map_xskmap) F(map_stacktrace) F(prog1) F(prog2) F(map_in_map) \
	F(cgroup_storage) F(percpu_cgroup_storage) F(map_spin_lock) F(map_array_ro) \
	F(map_array_wo) F(map_array_small) F(sk_storage_map) F(map_event_output) \
	F(map_reuseport_array) F(map_ringbuf) F(map_timer) F(map_kptr)

static void fix(const char *name, const int *at)
{
	if (!*at)
		return;
	printf("FIX %s", name);
	for (; *at; at++)
		printf(" %d", *at);
	printf("\n");
}

int main(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(tests); i++) {
		struct bpf_test *test = &tests[i];
		const unsigned char *code = (const unsigned char *)test->insns;
		int bytes;

		if (test->fill_helper) /* programs of a million instructions */
			continue;
		bytes = probe_filter_length(test->insns) * sizeof(struct bpf_insn);
		printf("TEST %d %d %s\n", test->prog_type, test->result, test->descr);
#define FIX(name) fix(#name, test->fixup_##name);
		MAPS(FIX)
		printf("CODE ");
		for (int k = 0; k < bytes; k++)
			printf("%02x", code[k]);
		printf("\n");
	}
	return 0;
}
