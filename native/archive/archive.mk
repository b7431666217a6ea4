# archive: tar in and out of a confined directory. A program of its own, so that it carries nothing that could start one.
ARCHIVE_SRC := common/error.c common/fd.c common/path.c $(wildcard archive/*.c)
ARCHIVE_LIBRARY := $(filter-out archive/main.c,$(ARCHIVE_SRC))
PROGRAMS += $B/archive
ANALYZE_SRC += $(wildcard archive/*.c)

$B/archive: $(ARCHIVE_SRC:%.c=$B/obj/%.o)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(ISOLATE_LIBS)
$B/asan/archive: $(ARCHIVE_SRC:%.c=$B/asan/obj/%.o)
	$(CC) $(ASAN_CFLAGS) -o $@ $^ $(ASAN_LIBS)
