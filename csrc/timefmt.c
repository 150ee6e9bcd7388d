/* RFC 3339 <-> whole seconds since the epoch. Pure arithmetic on the proleptic Gregorian calendar: no time zone
 * database, no locale, no range smaller than the years 0000 to 9999 that RFC 3339 can write. */
#include "e2b.h"
#include "shape.h"

#include <math.h>
#include <string.h>

#define FIRST_SECOND (-62167219200.0) /* 0000-01-01T00:00:00Z */
#define LAST_SECOND 253402300799.0    /* 9999-12-31T23:59:59Z */

static int is_leap(int year)
{
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

static int days_in_month(int year, int month)
{
    static const signed char days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return month == 2 && is_leap(year) ? 29 : days[month - 1];
}

/* Days since 1970-01-01; years begin in March here, so that the leap day comes last. */
static long long days_from_civil(int year, int month, int day)
{
    long long y = month <= 2 ? year - 1 : year;
    long long era = (y >= 0 ? y : y - 399) / 400;
    long long year_of_era = y - era * 400;
    long long day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    long long day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + day_of_era - 719468;
}

static void civil_from_days(long long days, int *year, int *month, int *day)
{
    long long z = days + 719468;
    long long era = (z >= 0 ? z : z - 146096) / 146097;
    long long day_of_era = z - era * 146097;
    long long year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    long long day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    long long shifted = (5 * day_of_year + 2) / 153;
    *day = (int)(day_of_year - (153 * shifted + 2) / 5 + 1);
    *month = (int)(shifted < 10 ? shifted + 3 : shifted - 9);
    *year = (int)(year_of_era + era * 400 + (*month <= 2));
}

/* The value of n digits at s, or -1. */
static int digits(const char *s, int n)
{
    int value = 0, i;
    for (i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9') return -1;
        value = value * 10 + (s[i] - '0');
    }
    return value;
}

/* The fraction is dropped, which rounds down on both sides of the epoch. 0 when s is not an RFC 3339 time. */
int e2b_time_parse(const char *s, size_t len, long long *seconds)
{
    int year, month, day, hour, minute, second;
    long long offset = 0;
    const char *end = s + len;

    if (len < 20) return 0; /* the shortest is 1970-01-01T00:00:00Z */
    if (s[4] != '-' || s[7] != '-' || s[13] != ':' || s[16] != ':') return 0;
    if (s[10] != 'T' && s[10] != 't' && s[10] != ' ') return 0;
    year = digits(s, 4);
    month = digits(s + 5, 2);
    day = digits(s + 8, 2);
    hour = digits(s + 11, 2);
    minute = digits(s + 14, 2);
    second = digits(s + 17, 2);
    if (year < 0 || month < 1 || month > 12 || day < 1 || day > days_in_month(year, month)) return 0;
    if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60) return 0;

    s += 19;
    if (*s == '.') {
        const char *first = ++s;
        while (s < end && *s >= '0' && *s <= '9') s++;
        if (s == first) return 0;
    }
    if (end - s == 1) {
        if (*s != 'Z' && *s != 'z') return 0;
    } else if (end - s == 6) {
        int h = digits(s + 1, 2), m = digits(s + 4, 2);
        if ((*s != '+' && *s != '-') || s[3] != ':' || h < 0 || h > 23 || m < 0 || m > 59) return 0;
        offset = (long long)(h * 60 + m) * 60;
        if (*s == '-') offset = -offset;
    } else {
        return 0;
    }
    *seconds = days_from_civil(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - offset;
    return 1;
}

/* The form in which servers write a Date header: "Sun, 06 Nov 1994 08:49:37 GMT". 0 for any other. */
int e2b_time_http(const char *s, size_t len, long long *seconds)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    int year, month, day, hour, minute, second;

    if (len != 29 || s[3] != ',' || s[19] != ':' || s[22] != ':' || memcmp(s + 25, " GMT", 4) != 0)
        return 0;
    for (month = 0; month < 12 && memcmp(s + 8, months + 3 * month, 3) != 0; month++) {
    }
    year = digits(s + 12, 4);
    day = digits(s + 5, 2);
    hour = digits(s + 17, 2);
    minute = digits(s + 20, 2);
    second = digits(s + 23, 2);
    if (month == 12 || year < 0 || day < 1 || day > days_in_month(year, month + 1)) return 0;
    if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60) return 0;
    *seconds = days_from_civil(year, month + 1, day) * 86400 + hour * 3600 + minute * 60 + second;
    return 1;
}

static char *put_digits(char *to, int value, int n)
{
    int i;
    for (i = n - 1; i >= 0; i--) {
        to[i] = (char)('0' + value % 10);
        value /= 10;
    }
    return to + n;
}

/* Writes at most E2B_TIME_SIZE bytes (no NUL) and returns how many; 0 when the year has not four digits. Milliseconds
 * are written only for a time between two seconds, rounded to the nearest. */
size_t e2b_time_format(double seconds, char *to)
{
    double whole = floor(seconds);
    int millis = -1, year, month, day, left;
    long long epoch, days;
    char *p = to;

    if (!(whole >= FIRST_SECOND && whole <= LAST_SECOND)) return 0;
    if (seconds != whole) {
        millis = (int)floor((seconds - whole) * 1000.0 + 0.5);
        if (millis == 1000) {
            millis = 0;
            whole += 1.0;
            if (whole > LAST_SECOND) return 0;
        }
    }
    epoch = (long long)whole;
    days = (epoch >= 0 ? epoch : epoch - 86399) / 86400;
    left = (int)(epoch - days * 86400);
    civil_from_days(days, &year, &month, &day);

    p = put_digits(p, year, 4);
    *p++ = '-';
    p = put_digits(p, month, 2);
    *p++ = '-';
    p = put_digits(p, day, 2);
    *p++ = 'T';
    p = put_digits(p, left / 3600, 2);
    *p++ = ':';
    p = put_digits(p, left / 60 % 60, 2);
    *p++ = ':';
    p = put_digits(p, left % 60, 2);
    if (millis >= 0) {
        *p++ = '.';
        p = put_digits(p, millis, 3);
    }
    *p++ = 'Z';
    return (size_t)(p - to);
}

static int time_parse(lua_State *L)
{
    size_t len;
    const char *s = luaL_checklstring(L, 1, &len);
    long long seconds;
    if (!e2b_time_parse(s, len, &seconds)) return 0;
    e2b_pushwhole(L, seconds);
    return 1;
}

static int time_format(lua_State *L)
{
    char text[E2B_TIME_SIZE];
    size_t len = e2b_time_format((double)luaL_checknumber(L, 1), text);
    if (len == 0) return 0;
    lua_pushlstring(L, text, len);
    return 1;
}

/* Adds time_parse and time_format to the table on top of the stack. */
int e2b_timefmt_open(lua_State *L)
{
    static const luaL_Reg functions[] = {{"time_parse", time_parse}, {"time_format", time_format}, {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
    return 0;
}
