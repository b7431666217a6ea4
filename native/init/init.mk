# init: the first process of a container that asks for one. It runs inside containers: static, without any library.
PROGRAMS += $B/init
ANALYZE_SRC += init/main.c

$B/init: $B/obj/init/main.o
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^
