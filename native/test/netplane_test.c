/* netplane's parsers and its building of messages, case by case; what needs a kernel is in test/conformance/network. */
#include "test/check.h"

#include "netplane/element.h"
#include "netplane/links.h"
#include "netplane/netlink.h"
#include "netplane/nft.h"
#include "netplane/request.h"
#include "netplane/text.h"
#include "netplane/wireguard.h"

#include <linux/if_link.h>
#include <linux/netfilter.h>
#include <linux/genetlink.h>
#include <linux/rtnetlink.h>
#include <linux/time_types.h>
#include <linux/wireguard.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static struct error error;

static void check_quoted(const char *bytes, size_t length, const char *expected)
{
    struct text text = {0};
    text_quote(&text, bytes, length);
    text_put(&text, "", 1);
    CHECK(!text.failed);
    CHECK_TEXT(text.bytes, expected);
    text_release(&text);
}

static void test_text(void)
{
    check_quoted("plain", 5, "\"plain\"");
    check_quoted("a\"b\\c\n\x01", 7, "\"a\\\"b\\\\c\\u000a\\u0001\"");
    check_quoted("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 9, "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"");
    /* A lone byte, an overlong slash, a surrogate, something cut short, above U+10FFFF. */
    check_quoted("\xff.\xc0\xaf.\xed\xa0\x80.\xe2\x82", 11,
                 "\"\xef\xbf\xbd.\xef\xbf\xbd\xef\xbf\xbd.\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd.\xef\xbf\xbd\xef\xbf\xbd\"");
    check_quoted("\xf4\x90\x80\x80", 4, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
    struct text list = {0};
    text_puts(&list, "[");
    for (int i = 0; i < 3; i++) {
        text_comma(&list);
        text_puts(&list, "{");
        text_key(&list, "a");
        text_format(&list, "%d", i);
        text_key(&list, "b");
        text_puts(&list, "true}");
    }
    text_put(&list, "]", 2);
    CHECK_TEXT(list.bytes, "[{\"a\":0,\"b\":true},{\"a\":1,\"b\":true},{\"a\":2,\"b\":true}]");
    text_release(&list);
}

static void test_addresses(void)
{
    struct ip ip;
    struct prefix prefix;
    struct mac mac;
    char text[PREFIX_TEXT_MAX];
    CHECK(ip_from_text("10.0.1.11", &ip) && ip.family == AF_INET);
    CHECK(ip_from_text("fd00::1", &ip) && ip.family == AF_INET6);
    static const char *const no_ip[] = {"", "10.0.1", "10.0.1.256", "10.0.1.1.1", "010.0.0.1", " 10.0.0.1", "::g", "1:2"};
    for (size_t i = 0; i < sizeof no_ip / sizeof *no_ip; i++)
        CHECK(!ip_from_text(no_ip[i], &ip));
    CHECK(prefix_from_text("10.0.0.0/8", &prefix) && prefix.length == 8);
    CHECK_TEXT(prefix_to_text(&prefix, text), "10.0.0.0/8");
    CHECK(prefix_from_text("fd00::1", &prefix) && prefix.length == 128);
    static const char *const no_prefix[] = {"10.0.0.0/", "10.0.0.0/33", "10.0.0.0/08", "10.0.0.0/+8", "10.0.0.0/8/8", "/8", "fd00::/129"};
    for (size_t i = 0; i < sizeof no_prefix / sizeof *no_prefix; i++)
        CHECK(!prefix_from_text(no_prefix[i], &prefix));
    CHECK(mac_from_text("02:FE:00:00:00:01", &mac) && mac.bytes[1] == 0xfe);
    CHECK_TEXT(mac_to_text(mac.bytes, text), "02:fe:00:00:00:01");
    static const char *const no_mac[] = {"", "0", "02:fe:00:00:00", "02:fe:00:00:00:01:", "2:fe:00:00:00:01", "02-fe-00-00-00-01"};
    for (size_t i = 0; i < sizeof no_mac / sizeof *no_mac; i++)
        CHECK(!mac_from_text(no_mac[i], &mac));
}

static struct element_set set_of(int count, const int *key, int data, bool interval)
{
    struct element_set set = {.family = NFPROTO_IPV4, .table = "t", .name = "s", .interval = interval};
    for (int i = 0; i < count; i++)
        set.key[set.key_count++] = (uint8_t)key[i];
    if (data >= 0)
        set.data[set.data_count++] = (uint8_t)data;
    CHECK(element_set_check(&set, &error) == 0);
    return set;
}

static void check_element(const struct element_set *set, const char *text, const char *expected)
{
    struct element element;
    struct text out = {0};
    CHECK(element_parse(set, text, set->data_count > 0, &element, &error) == 0);
    element_print(set, &element, true, &out);
    text_put(&out, "", 1);
    CHECK_TEXT(out.bytes, expected);
    text_release(&out);
}

static void refuse_element(const struct element_set *set, const char *text, const char *why)
{
    struct element element;
    error.text[0] = '\0';
    CHECK(element_parse(set, text, set->data_count > 0, &element, &error) < 0);
    CHECK(strstr(error.text, why) != NULL);
}

static void test_elements(void)
{
    struct element_set ports = set_of(2, (int[]){FIELD_INET_PROTO, FIELD_INET_SERVICE}, FIELD_VERDICT, false);
    check_element(&ports, "tcp . 8080 : goto tcp3", "tcp . 8080 : goto tcp3");
    check_element(&ports, "6 . 8080 : jump a", "tcp . 8080 : jump a");
    check_element(&ports, "47 . 0 : accept", "47 . 0 : accept");
    refuse_element(&ports, "tcp . 8080", "maps to nothing");
    refuse_element(&ports, "tcp . 65536 : drop", "\"65536\" is no inet_service");
    refuse_element(&ports, "tcp : drop", "1 fields are missing");
    refuse_element(&ports, "tcp . 1 . 2 : drop", "is no inet_service");
    refuse_element(&ports, "tcp . 1 : goto ", "is no verdict");
    refuse_element(&ports, "tcp . 1 : goto a;b", "is no verdict");
    CHECK(ports.key_length == 8 && ports.data_length == 0);

    struct element_set marks = set_of(1, (int[]){FIELD_ETHER_ADDR}, FIELD_MARK, false);
    check_element(&marks, "02:fe:00:00:00:01 : 1392508929", "02:fe:00:00:00:01 : 0x53000001");
    refuse_element(&marks, "02:fe:00:00:00:01 : 0x", "is no mark");
    refuse_element(&marks, "02:fe:00:00:00:01 : 0x123456789", "is no mark");
    CHECK(marks.key_length == 6 && marks.data_length == 4);

    struct element_set blocks = set_of(1, (int[]){FIELD_IPV4_ADDR}, -1, true);
    check_element(&blocks, "10.0.0.0/8", "10.0.0.0/8");
    check_element(&blocks, "10.0.0.1/32", "10.0.0.1");
    check_element(&blocks, "10.0.0.0-10.0.0.255", "10.0.0.0/24");
    check_element(&blocks, "10.0.0.1-10.0.0.2", "10.0.0.1-10.0.0.2");
    check_element(&blocks, "0.0.0.0/0", "0.0.0.0/0");
    refuse_element(&blocks, "10.0.0.1/24", "is no ipv4_addr");
    refuse_element(&blocks, "10.0.0.2-10.0.0.1", "is no ipv4_addr");
    refuse_element(&blocks, "10.0.0.0/33", "is no ipv4_addr");
    refuse_element(&blocks, "10.0.0.1-", "is no ipv4_addr");

    struct element_set mixed = set_of(3, (int[]){FIELD_IPV6_ADDR, FIELD_IFNAME, FIELD_INET_SERVICE}, -1, true);
    check_element(&mixed, "fd00::/16 . a-b . 80-90", "fd00::/16 . a-b . 80-90");
    CHECK(mixed.key_length == 36);

    uint8_t edge[] = {0x0a, 0xff};
    CHECK(bytes_increment(edge, 2) && edge[0] == 0x0b && edge[1] == 0);
    CHECK(bytes_decrement(edge, 2) && edge[0] == 0x0a && edge[1] == 0xff);
    uint8_t last[] = {0xff, 0xff};
    CHECK(!bytes_increment(last, 2) && !bytes_decrement((uint8_t[]){0}, 1));
}

/* Lengths that lie: nothing is read beyond what is there. The buffers are exact, so that the sanitizers see it. */
static void test_attributes(void)
{
    const struct nlattr *table[8];
    static const uint8_t lies[][8] = {
        {0xff, 0xff, 1, 0, 1, 2, 3, 4}, {3, 0, 1, 0}, {0, 0, 1, 0}, {8, 0, 1, 0, 1, 2, 3, 0}, {4, 0, 1, 0, 9, 0, 2, 0}};
    static const size_t lengths[] = {8, 4, 4, 7, 8};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        uint8_t *exact = malloc(lengths[i]);
        CHECK(exact != NULL);
        if (exact == NULL)
            return;
        memcpy(exact, lies[i], lengths[i]);
        attributes_read(exact, lengths[i], table, 7);
        CHECK(table[2] == NULL && attribute_u32(table[1]) == 0 && attribute_text(table[1]) == NULL);
        free(exact);
    }
    static const uint8_t honest[] = {5, 0, 1, 0, 'a', 0, 0, 0, 6, 0, 2, 0x80, 'b', 0};
    attributes_read(honest, sizeof honest, table, 7);
    CHECK(attribute_text(table[1]) == NULL);
    CHECK_TEXT(attribute_text(table[2]), "b");
    CHECK(attribute_u16(table[2]) == 'b' && attribute_u8(table[7]) == 0);
}

/* What was sent is what is read again. */
static void test_messages(void)
{
    struct outgoing out = {0};
    struct link_row row;
    struct link_fields link = {.name = "vx", .kind = LINK_VXLAN, .up = 1, .mtu = 1450, .vni = 4097, .port = 4789, .alias = "skep:a", .link_local = -1};
    struct message_context context = {.owner = 7, .namespace_fd = -1};
    CHECK(ip_from_text("10.99.0.1", &link.local) && mac_from_text("02:fe:00:00:00:01", &link.mac));
    put_link_add(&out, &link, &context);
    CHECK(!out.failed && out.count == 2 && out.places[1].owner == 7);
    CHECK(read_link((const struct nlmsghdr *)out.bytes, &row));
    CHECK(row.up && row.mtu == 1450 && row.vni == 4097 && row.port == 4789 && !row.learning && !row.own);
    CHECK_TEXT(row.name, "vx");
    CHECK_TEXT(row.kind, "vxlan");
    CHECK(memcmp(row.mac, link.mac.bytes, MAC_BYTES) == 0 && memcmp(row.local.bytes, link.local.bytes, 4) == 0);
    CHECK(read_link((const struct nlmsghdr *)(out.bytes + out.places[1].offset), &row) && row.own);
    CHECK_TEXT(row.alias, "skep:a");
    out_clear(&out);
    /* Without an address of IPv6 that the kernel would make when it goes up: up at last, when that is said. */
    link.link_local = 0;
    put_link_add(&out, &link, &context);
    CHECK(!out.failed && out.count == 3 && out.places[2].owner == 7);
    CHECK(read_link((const struct nlmsghdr *)out.bytes, &row) && !row.up);
    CHECK(read_link((const struct nlmsghdr *)(out.bytes + out.places[2].offset), &row) && row.up && row.own);
    out_shrink(&out);
    CHECK(out.count == 0 && out.length == 0);
    out_release(&out);
}

/* A socket at whose other end a kernel has answered already: these messages, to the first question of this socket. */
static struct netlink answered(struct outgoing *answers)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends) < 0)
        abort();
    for (size_t i = 0; i < answers->count; i++)
        ((struct nlmsghdr *)(answers->bytes + answers->places[i].offset))->nlmsg_seq = 1;
    CHECK(!answers->failed && send(ends[0], answers->bytes, answers->length, 0) == (ssize_t)answers->length);
    /* Kept open, so that the question can be sent: it ends with the process. */
    out_clear(answers);
    return (struct netlink){.fd = ends[1]};
}

/* The end of a dump that the kernel broke off. */
static void put_broken_off(struct outgoing *out, int number, uint16_t flags)
{
    int ended = -number;
    out_begin(out, NLMSG_DONE, NLM_F_MULTI | flags, &ended, sizeof ended, 0);
    out_end(out);
}

static void put_done(struct outgoing *out, int number)
{
    struct nlmsgerr refusal = {.error = -number};
    out_begin(out, number == 0 ? NLMSG_DONE : NLMSG_ERROR, 0, &refusal, sizeof refusal, 0);
    out_end(out);
}

/* The family of generic netlink is looked up and a link listed, as a kernel with WireGuard answers and as one without. */
static void test_tunnel_questions(void)
{
    struct outgoing out = {0};
    struct genlmsghdr header = {.cmd = CTRL_CMD_NEWFAMILY, .version = 1};
    uint16_t family = 0, wanted = 30;
    out_begin(&out, GENL_ID_CTRL, 0, &header, sizeof header, 0);
    out_put(&out, CTRL_ATTR_FAMILY_ID, &wanted, sizeof wanted);
    out_end(&out);
    struct netlink kernel = answered(&out);
    CHECK(wireguard_family(&kernel, &family, &error) == 0 && family == wanted);
    close(kernel.fd);
    put_done(&out, ENOENT);
    kernel = answered(&out);
    CHECK(wireguard_family(&kernel, &family, &error) < 0 && (error.number == EOPNOTSUPP || error.number == ENOENT));
    close(kernel.fd);
    /* Two peers in two messages, one of which has an address that is none. */
    uint8_t key[TUNNEL_KEY_BYTES];
    uint16_t port = 2377, af = AF_INET;
    memset(key, 0x44, sizeof key);
    header = (struct genlmsghdr){.cmd = WG_CMD_GET_DEVICE, .version = WG_GENL_VERSION};
    for (int i = 0; i < 2; i++) {
        out_begin(&out, wanted, NLM_F_MULTI, &header, sizeof header, 0);
        out_put(&out, WGDEVICE_A_PUBLIC_KEY, key, sizeof key);
        out_put(&out, WGDEVICE_A_LISTEN_PORT, &port, sizeof port);
        out_put_u32(&out, WGDEVICE_A_FWMARK, 83);
        size_t peers = out_nest(&out, WGDEVICE_A_PEERS), peer = out_nest(&out, 0);
        out_put(&out, WGPEER_A_PUBLIC_KEY, key, sizeof key);
        out_put(&out, WGPEER_A_ENDPOINT, key, 7);
        size_t list = out_nest(&out, WGPEER_A_ALLOWEDIPS), one = out_nest(&out, 0);
        out_put(&out, WGALLOWEDIP_A_FAMILY, &af, sizeof af);
        out_put(&out, WGALLOWEDIP_A_IPADDR, key, i == 0 ? 4 : 16);
        out_put_u8(&out, WGALLOWEDIP_A_CIDR_MASK, 32);
        out_nest_end(&out, one);
        out_nest_end(&out, list);
        out_nest_end(&out, peer);
        out_nest_end(&out, peers);
        out_end(&out);
    }
    put_done(&out, 0);
    kernel = answered(&out);
    struct text text = {0};
    CHECK(wireguard_list(&kernel, wanted, "wg0", &text, &error) == 0);
    text_put(&text, "", 1);
    CHECK_TEXT(text.bytes,
               "{\"publicKey\":\"REREREREREREREREREREREREREREREREREREREREREQ=\",\"listenPort\":2377,\"mark\":83,\"peers\":["
               "{\"publicKey\":\"REREREREREREREREREREREREREREREREREREREREREQ=\",\"allowed\":[\"68.68.68.68/32\"],"
               "\"receivedBytes\":0,\"sentBytes\":0},"
               "{\"publicKey\":\"REREREREREREREREREREREREREREREREREREREREREQ=\",\"allowed\":[],"
               "\"receivedBytes\":0,\"sentBytes\":0}]}");
    text_release(&text);
    close(kernel.fd);
    put_done(&out, ENODEV);
    kernel = answered(&out);
    CHECK(wireguard_list(&kernel, wanted, "wg0", &text, &error) < 0 && error.number == ENODEV);
    text_release(&text);
    close(kernel.fd);
    out_release(&out);
}

/* A dump that ends before its time is no list: what is missing from it would be made again, and what it has would stay. */
static void test_broken_dumps(void)
{
    struct outgoing out = {0};
    struct text text = {0};
    struct element_set set = set_of(1, (int[]){FIELD_IPV4_ADDR}, -1, false);
    set.table = "skep";
    set.name = "s";
    put_broken_off(&out, ENOENT, 0);
    struct netlink kernel = answered(&out);
    CHECK(nft_list_elements(&kernel, &set, &text, &error) < 0 && error.number == ENOENT);
    CHECK_TEXT(error.text, "list elements of skep s: list objects of the kernel: No such file or directory");
    close(kernel.fd);
    put_broken_off(&out, 0, 0);
    kernel = answered(&out);
    text.length = 0;
    CHECK(nft_list_elements(&kernel, &set, &text, &error) == 0 && text.length == 2);
    close(kernel.fd);
    /* Links are read before everything else, and what was read of them is given back (leak checker). */
    put_link_add(&out, &(struct link_fields){.name = "l", .kind = LINK_DUMMY, .up = -1, .link_local = -1}, &(struct message_context){0});
    put_broken_off(&out, EINVAL, 0);
    kernel = answered(&out);
    CHECK(dump_write(&kernel, DUMP_LINKS, true, &text, &error) < 0 && error.number == EINVAL);
    close(kernel.fd);
    text_release(&text);
    out_release(&out);
}

/* A kernel that answers two questions, each when it is asked: a peer of WireGuard, and that one changed under way at first. */
static void answer_twice(int fd)
{
    uint8_t key[TUNNEL_KEY_BYTES] = {0}, question[4096];
    struct genlmsghdr header = {.cmd = WG_CMD_GET_DEVICE, .version = WG_GENL_VERSION};
    for (int asked = 0; asked < 2; asked++) {
        struct outgoing out = {0};
        if (recv(fd, question, sizeof question, 0) < (ssize_t)MESSAGE_HEADER)
            _exit(1);
        out_begin(&out, 30, NLM_F_MULTI, &header, sizeof header, 0);
        size_t peers = out_nest(&out, WGDEVICE_A_PEERS), peer = out_nest(&out, 0);
        out_put(&out, WGPEER_A_PUBLIC_KEY, key, sizeof key);
        out_nest_end(&out, peer);
        out_nest_end(&out, peers);
        out_end(&out);
        put_broken_off(&out, 0, asked == 0 ? NLM_F_DUMP_INTR : 0);
        for (size_t i = 0; i < out.count; i++)
            memcpy(out.bytes + out.places[i].offset + offsetof(struct nlmsghdr, nlmsg_seq),
                   question + offsetof(struct nlmsghdr, nlmsg_seq), sizeof(uint32_t));
        (void)!send(fd, out.bytes, out.length, 0);
        out_release(&out);
    }
    _exit(0);
}

/* Where a peer changes while they are listed, they are listed again. */
static void test_interrupted_listing(void)
{
    struct text text = {0};
    int ends[2], status = 0;
    if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends) < 0)
        abort();
    pid_t child = fork();
    if (child == 0)
        answer_twice(ends[0]);
    close(ends[0]);
    struct netlink kernel = {.fd = ends[1]};
    CHECK(wireguard_list(&kernel, 30, "wg0", &text, &error) == 0);
    text_put(&text, "", 1);
    CHECK_TEXT(text.bytes, "{\"listenPort\":0,\"peers\":[{\"publicKey\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\",\"allowed\":[],"
                           "\"receivedBytes\":0,\"sentBytes\":0}]}");
    close(ends[1]);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    text_release(&text);
}

/* dev_valid_name() takes what JSON does not. */
static void test_listed_names(void)
{
    struct outgoing out = {0};
    struct text text = {0};
    struct element_set set = set_of(1, (int[]){FIELD_IFNAME}, -1, false);
    set.table = "skep";
    set.name = "s";
    static const char name[16] = "a\"\\\xff";
    uint8_t header[4] = {NFPROTO_IPV4, 0, 0, 0}; /* struct nfgenmsg */
    out_begin(&out, 10 << 8 | 12, NLM_F_MULTI, header, sizeof header, 0); /* NFT_MSG_NEWSETELEM */
    size_t list = out_nest(&out, 3), element = out_nest(&out, 1), key_nest = out_nest(&out, 1);
    out_put(&out, 1, name, sizeof name);
    out_nest_end(&out, key_nest);
    out_nest_end(&out, element);
    out_nest_end(&out, list);
    out_end(&out);
    put_broken_off(&out, 0, 0);
    struct netlink kernel = answered(&out);
    CHECK(nft_list_elements(&kernel, &set, &text, &error) == 0);
    text_put(&text, "", 1);
    CHECK_TEXT(text.bytes, "[\"a\\\"\\\\\xef\xbf\xbd\"]");
    close(kernel.fd);
    text_release(&text);
    out_release(&out);
}

static void test_keys(void)
{
    uint8_t key[TUNNEL_KEY_BYTES];
    char text[KEY_TEXT_BYTES + 1];
    /* RFC 7748 §6.1: Bob's public key. */
    CHECK(key_from_text("3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=", key));
    CHECK(key[0] == 0xde && key[1] == 0x9e && key[31] == 0x4f);
    key_to_text(key, text);
    CHECK_TEXT(text, "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=");
    static const char *const no_key[] = {
        "", "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08", "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK09=",
        "3p7bfXt9wbTTW2HC7OQ1Nz-DQ8hbeGdNrfx+FG+IK08=", "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK0==",
    };
    for (size_t i = 0; i < sizeof no_key / sizeof *no_key; i++)
        CHECK(!key_from_text(no_key[i], key));
}

/* A listing as a kernel gives it, its private key among it. */
static void test_tunnels(void)
{
    struct outgoing out = {0};
    struct tunnel_fields tunnel = {.link = "wg0", .port = 2377, .key_set = true, .keepalive_seconds = 25};
    const struct value allowed = {.kind = VALUE_STRING, .string = "100.64.7.255/32"}, list_of_one = {.kind = VALUE_ARRAY, .count = 1, .first = &allowed};
    memset(tunnel.key, 0x11, sizeof tunnel.key);
    put_wireguard_set(&out, 30, &tunnel, 7);
    CHECK(!out.failed && out.count == 1 && out.places[0].owner == 7);
    CHECK(ip_from_text("10.99.0.1", &tunnel.endpoint));
    tunnel.allowed = &list_of_one;
    put_wireguard_peer(&out, 30, &tunnel, false, 8);
    put_wireguard_peer(&out, 30, &tunnel, true, 9);
    const struct nlmsghdr *set = (const struct nlmsghdr *)(out.bytes + out.places[1].offset);
    struct text peers = {0};
    struct tunnel_listing listing = {.peers = &peers};
    /* What sets a peer is spelt as what lists one. */
    CHECK(set->nlmsg_type == 30 && wireguard_read(&listing, set, &error) == 0 && !listing.has_key);
    text_put(&peers, "", 1);
    CHECK_TEXT(peers.bytes, "{\"publicKey\":\"ERERERERERERERERERERERERERERERERERERERERERE=\",\"endpoint\":\"10.99.0.1\",\"port\":2377,"
                            "\"allowed\":[\"100.64.7.255/32\"],\"keepaliveSeconds\":25,\"receivedBytes\":0,\"sentBytes\":0}");
    text_release(&peers);
    out_clear(&out);
    struct genlmsghdr header = {.cmd = WG_CMD_SET_DEVICE, .version = WG_GENL_VERSION};
    struct __kernel_timespec shaken = {.tv_sec = 1700000000};
    uint8_t secret[TUNNEL_KEY_BYTES], other[TUNNEL_KEY_BYTES];
    uint64_t bytes = 5;
    memset(secret, 0x22, sizeof secret);
    memset(other, 0x33, sizeof other);
    out_begin(&out, 30, 0, &header, sizeof header, 0);
    out_put(&out, WGDEVICE_A_PRIVATE_KEY, secret, sizeof secret);
    out_put(&out, WGDEVICE_A_PUBLIC_KEY, other, sizeof other);
    out_put(&out, WGDEVICE_A_LISTEN_PORT, &tunnel.port, sizeof tunnel.port);
    size_t list = out_nest(&out, WGDEVICE_A_PEERS), peer = out_nest(&out, 0);
    out_put(&out, WGPEER_A_PUBLIC_KEY, tunnel.key, sizeof tunnel.key);
    out_put(&out, WGPEER_A_LAST_HANDSHAKE_TIME, &shaken, sizeof shaken);
    out_put(&out, WGPEER_A_RX_BYTES, &bytes, sizeof bytes);
    out_put(&out, WGPEER_A_PRESHARED_KEY, secret, sizeof secret); /* that it has one is told, and nothing of it */
    out_nest_end(&out, peer);
    out_nest_end(&out, list);
    out_end(&out);
    CHECK(wireguard_read(&listing, (const struct nlmsghdr *)out.bytes, &error) == 0);
    CHECK(listing.has_key && memcmp(listing.public_key, other, sizeof other) == 0 && listing.port == 2377);
    text_put(&peers, "", 1);
    CHECK_TEXT(peers.bytes, "{\"publicKey\":\"ERERERERERERERERERERERERERERERERERERERERERE=\",\"allowed\":[],\"preshared\":true,"
                            "\"handshakeSeconds\":1700000000,\"receivedBytes\":5,\"sentBytes\":0}");
    text_release(&peers);
    out_release(&out);
}

/* Fifty thousand elements: many messages, none with an attribute longer than its length can say. */
static void test_large_transaction(void)
{
    struct text json = {0};
    struct document document;
    text_puts(&json, "[");
    for (int i = 0; i < 50000; i++) {
        text_comma(&json);
        text_format(&json, "\"10.%d.%d.%d . %d : 10.0.0.1\"", i >> 16, i >> 8 & 255, i & 255, i);
    }
    text_puts(&json, "]");
    CHECK(document_parse(json.bytes, json.length, &document, &error) == 0 && document.root->count == 50000);
    struct element_set set = set_of(2, (int[]){FIELD_IPV4_ADDR, FIELD_INTEGER}, FIELD_IPV4_ADDR, false);
    struct operation operation = {.kind = OP_ELEMENTS, .elements = {.set = &set, .add = document.root}};
    struct outgoing out = {0};
    CHECK(nft_put_elements(&out, &operation, 0, &error) == 0 && !out.failed);
    CHECK(out.count > 20 && out.count < 50);
    size_t longest = 0;
    for (size_t i = 0; i < out.count; i++) {
        const struct nlmsghdr *message = (const struct nlmsghdr *)(out.bytes + out.places[i].offset);
        longest = message->nlmsg_len > longest ? message->nlmsg_len : longest;
    }
    CHECK(longest > 60000 && longest < 65535);
    out_release(&out);
    document_release(&document);
    text_release(&json);
}

/* Parsed, the tree is written again: what it is must show in it. */
static void write_value(const struct value *value, struct text *out)
{
    switch (value->kind) {
    case VALUE_NULL:
        text_puts(out, "null");
        break;
    case VALUE_BOOLEAN:
        text_puts(out, value->boolean ? "true" : "false");
        break;
    case VALUE_INTEGER:
        text_format(out, "%lld", (long long)value->integer);
        break;
    case VALUE_FRACTION:
        text_puts(out, "fraction");
        break;
    case VALUE_STRING:
        CHECK(strlen(value->string) == value->count);
        text_quote(out, value->string, value->count);
        break;
    case VALUE_ARRAY:
    case VALUE_OBJECT: {
        uint32_t count = 0;
        text_puts(out, value->kind == VALUE_ARRAY ? "[" : "{");
        for (const struct value *item = value->first; item != NULL; item = item->next, count++) {
            if (value->kind == VALUE_OBJECT)
                text_key(out, item->key);
            else
                text_comma(out);
            write_value(item, out); // NOLINT(misc-no-recursion): the text's depth is bounded
        }
        CHECK(count == value->count);
        text_puts(out, value->kind == VALUE_ARRAY ? "]" : "}");
        break;
    }
    }
}

/* What is read of a text, or why it is refused. The text lies at the very end of its memory. */
static const char *document_of(const char *json, size_t length)
{
    static struct text written;
    struct document document;
    char *copy = malloc(length);
    memcpy(copy, json, length);
    text_release(&written);
    if (document_parse(copy, length, &document, &error) < 0)
        text_puts(&written, strchr(error.text, ':') == NULL ? error.text : strchr(error.text, ':') + 2);
    else
        write_value(document.root, &written);
    text_put(&written, "", 1);
    document_release(&document);
    free(copy);
    return written.bytes;
}
#define DOCUMENT(json) document_of(json, sizeof(json) - 1)

static void test_documents(void)
{
    CHECK_TEXT(DOCUMENT(" {\"a\" : [ 1 ,-2, 0, -0 ] , \"b\":{},\"c\":[],\n\"\":null, \"t\":true,\"f\":false }\t"),
               "{\"a\":[1,-2,0,0],\"b\":{},\"c\":[],\"\":null,\"t\":true,\"f\":false}");
    CHECK_TEXT(DOCUMENT("7"), "7");
    CHECK_TEXT(DOCUMENT("[9223372036854775807,-9223372036854775808,9223372036854775808,-9223372036854775809,1.5,1e3,2E-7]"),
               "[9223372036854775807,-9223372036854775808,fraction,fraction,fraction,fraction,fraction]");
    CHECK_TEXT(DOCUMENT("\"a\\u00e9\\u20AC\\ud83d\\ude00 \\\"\\\\\\/\\b\\f\\n\\r\\t\\u001f end\""),
               "\"a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80 \\\"\\\\/\\u0008\\u000c\\u000a\\u000d\\u0009\\u001f end\"");
    CHECK_TEXT(DOCUMENT("[\"\xc3\xa9\xf0\x9f\x98\x80\"]"), "[\"\xc3\xa9\xf0\x9f\x98\x80\"]");
    CHECK_TEXT(DOCUMENT("{\"a\":1,\"b\":2,\"\\u0061\":3}"), "the same key twice in one object");
    CHECK_TEXT(DOCUMENT("[{\"a\":1},{\"a\":1}]"), "[{\"a\":1},{\"a\":1}]");
    static const char *const refused[] = {
        "", " ", "{", "[", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":1,", "{\"a\":1,}", "{a:1}", "{\"a\" 1}",
        "{,}", "{1:2}", "[}", "{]", "]", "}", "1 2", "{}{}", "[]]", "01", "-", "-a", "1.", ".5", "1e", "1e+", "+1", "0x10", "tru", "nul", "NaN", "'a'",
        "\"", "\"a", "\"\\", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"\\u0000\"", "\"\\ud83d\"", "\"\\ud83d\\u0041\"", "\"\\ude00\"", "\"\\ud83d\\",
        "\"\n\"", "\"\xff\"", "\"\xc3\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"", "[1]x", "/**/1",
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        char *copy = strdup(refused[i]);
        struct document document;
        error.number = 0;
        CHECK(document_parse(copy, strlen(copy), &document, &error) < 0 && error.number == 0);
        document_release(&document);
        free(copy);
    }
    CHECK_TEXT(DOCUMENT("[1\0]"), "it ends too early");
    CHECK_TEXT(DOCUMENT("\"a\0b\""), "a control character in a string");
    struct text deep = {0};
    for (int i = 0; i < DEPTH_MAX; i++)
        text_puts(&deep, "[");
    for (int i = 0; i < DEPTH_MAX; i++)
        text_puts(&deep, "]");
    text_put(&deep, "", 1);
    CHECK_TEXT(document_of(deep.bytes, deep.length - 1), deep.bytes);
    deep.bytes[0] = ' ';
    CHECK_TEXT(document_of(deep.bytes, deep.length - 1), "it is followed by something else");
    text_release(&deep);
    for (int i = 0; i <= DEPTH_MAX; i++)
        text_puts(&deep, "[");
    CHECK_TEXT(document_of(deep.bytes, deep.length), "nested too deep");
    text_release(&deep);
    for (int i = 0; i <= MEMBERS_MAX; i++)
        text_format(&deep, "%c\"%d\":0", i == 0 ? '{' : ',', i);
    text_puts(&deep, "}");
    CHECK_TEXT(document_of(deep.bytes, deep.length), "too many members");
    text_release(&deep);
}

static int decode(const char *text)
{
    struct request request;
    error.text[0] = '\0';
    char *copy = strdup(text);
    int result = request_decode(copy, strlen(copy), &request, &error);
    request_release(&request);
    free(copy);
    return result;
}

static void test_requests(void)
{
    CHECK(decode("{\"id\":1,\"batches\":[]}") == 0);
    CHECK(decode("{\"id\":9007199254740992,\"batches\":[]}") < 0);
    CHECK(decode("{\"id\":1,\"batches\":[{\"namespace\":\"\",\"operations\":[{\"op\":\"watch\"}]}]}") == 0);
    CHECK(decode("{\"id\":1,\"batches\":[{\"namespace\":\"\",\"operations\":[{\"op\":\"watch\",\"ignore\":[\"ENOENT\"]}]}]}") == 0);
    CHECK(decode("{\"id\":1,\"batches\":[{\"namespace\":\"x\",\"operations\":[]}]}") < 0);
    CHECK(strstr(error.text, "absolute path") != NULL);
    CHECK(decode("{\"id\":1,\"batches\":[{\"namespace\":\"\",\"operations\":[{\"op\":\"link-delete\"}]}]}") < 0);
    CHECK_TEXT(error.text, "link-delete: property name is required: Invalid argument");
    /* A key that is none may be one with a slip: it is not told. */
    CHECK(decode("{\"id\":1,\"batches\":[{\"namespace\":\"\",\"operations\":[{\"op\":\"wireguard-set\",\"link\":\"w\","
                 "\"privateKey\":\"3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK09=\"}]}]}") < 0);
    CHECK_TEXT(error.text, "wireguard-set: property privateKey is no key: Invalid argument");
    CHECK(decode("{\"id\":1,\"batches\":[{\"namespace\":\"\",\"operations\":[{\"op\":\"wireguard-peer-set\",\"link\":\"w\","
                 "\"publicKey\":\"3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=\",\"allowed\":[\"10.0.0.1/33\"]}]}]}") < 0);
    CHECK(strstr(error.text, "allowed[0] is no prefix") != NULL);
    for (int kind = 0; kind < OP_COUNT; kind++)
        CHECK(operation_name((enum operation_kind)kind) != NULL);
}

int main(void)
{
    test_text();
    test_addresses();
    test_elements();
    test_attributes();
    test_messages();
    test_keys();
    test_tunnel_questions();
    test_broken_dumps();
    test_interrupted_listing();
    test_listed_names();
    test_tunnels();
    test_large_transaction();
    test_documents();
    test_requests();
    return checks_end("netplane_test");
}
