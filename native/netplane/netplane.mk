# netplane: a program of its own, dynamic, since libnftables is. Only it needs libnftables-dev.
NETPLANE_SRC := common/error.c common/fd.c $(wildcard netplane/*.c)
NETPLANE_LIBRARY := $(filter-out netplane/main.c,$(NETPLANE_SRC))
NETPLANE_LDFLAGS = -pie -Wl,-z,relro,-z,now,-z,noexecstack,-z,text -Wl,--gc-sections
NETPLANE_LIBS = -lnftables
PROGRAMS += $B/netplane
ANALYZE_SRC += $(wildcard netplane/*.c)

$B/netplane: $(NETPLANE_SRC:%.c=$B/obj/%.o)
	$(CC) $(CFLAGS) $(NETPLANE_LDFLAGS) -o $@ $^ $(NETPLANE_LIBS)
$B/asan/netplane: $(NETPLANE_SRC:%.c=$B/asan/obj/%.o)
	$(CC) $(ASAN_CFLAGS) -o $@ $^ $(NETPLANE_LIBS)
$B/valgrind/netplane: $(NETPLANE_SRC:%.c=$B/valgrind/obj/%.o)
	$(CC) $(TEST_CFLAGS) -o $@ $^ $(NETPLANE_LIBS)
$B/test/netplane_test: $B/faults/obj/test/netplane_test.o $(NETPLANE_LIBRARY:%.c=$B/faults/obj/%.o)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -o $@ $^ $(NETPLANE_LIBS)
$B/asan/test/netplane_test: $B/asan/obj/test/netplane_test.o $(NETPLANE_LIBRARY:%.c=$B/asan/obj/%.o)
	@mkdir -p $(@D)
	$(CC) $(ASAN_CFLAGS) -o $@ $^ $(NETPLANE_LIBS)
$B/fuzz/netplane: fuzz/netplane.c $(NETPLANE_LIBRARY)
	@mkdir -p $(@D)
	$(CLANG) $(FUZZ_CFLAGS) -o $@ $< $(NETPLANE_LIBRARY) $(NETPLANE_LIBS)
