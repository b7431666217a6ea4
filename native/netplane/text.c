#include "netplane/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static bool reserve(struct text *text, size_t more)
{
    if (text->failed)
        return false;
    if (more <= text->room - text->length)
        return true;
    size_t room = text->room == 0 ? 4096 : text->room;
    while (room - text->length < more && room <= TEXT_BYTES_MAX)
        room *= 2;
    char *grown = room > TEXT_BYTES_MAX || more > TEXT_BYTES_MAX ? NULL : realloc(text->bytes, room);
    if (grown == NULL) {
        text->failed = true;
        return false;
    }
    text->bytes = grown;
    text->room = room;
    return true;
}

void text_put(struct text *text, const char *bytes, size_t length)
{
    if (length == 0 || !reserve(text, length))
        return;
    memcpy(text->bytes + text->length, bytes, length);
    text->length += length;
}

void text_puts(struct text *text, const char *string)
{
    text_put(text, string, strlen(string));
}

void text_format(struct text *text, const char *format, ...)
{
    char small[512];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(small, sizeof small, format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length >= sizeof small)
        text->failed = true; /* no format of ours is that long */
    else
        text_put(text, small, (size_t)length);
}

size_t utf8_length(const unsigned char *at, size_t left)
{
    size_t length = at[0] < 0x80 ? 1 : at[0] >= 0xc2 && at[0] < 0xe0 ? 2 : at[0] >= 0xe0 && at[0] < 0xf0 ? 3 : at[0] >= 0xf0 && at[0] < 0xf5 ? 4 : 0;
    if (length == 0 || length > left)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    if ((at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xed && at[1] >= 0xa0) || (at[0] == 0xf0 && at[1] < 0x90) ||
        (at[0] == 0xf4 && at[1] >= 0x90))
        return 0;
    return length;
}

void text_quote(struct text *text, const char *bytes, size_t length)
{
    text_put(text, "\"", 1);
    size_t plain = 0;
    for (size_t i = 0; i < length;) {
        unsigned char c = (unsigned char)bytes[i];
        size_t step = c >= 0x80 ? utf8_length((const unsigned char *)bytes + i, length - i) : 1;
        if (c >= 0x20 && c != '"' && c != '\\' && step > 0) {
            i += step;
            continue;
        }
        text_put(text, bytes + plain, i - plain);
        if (c >= 0x80)
            text_puts(text, "\xef\xbf\xbd");
        else if (c < 0x20)
            text_format(text, "\\u%04x", c);
        else
            text_format(text, "\\%c", c);
        plain = ++i;
    }
    text_put(text, bytes + plain, length - plain);
    text_put(text, "\"", 1);
}

void text_comma(struct text *text)
{
    if (text->length > 0 && strchr("{[", text->bytes[text->length - 1]) == NULL)
        text_put(text, ",", 1);
}

void text_key(struct text *text, const char *key)
{
    text_comma(text);
    text_format(text, "\"%s\":", key);
}
