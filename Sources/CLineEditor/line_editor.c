#include "line_editor.h"

#include <errno.h>
#include <fcntl.h>
#include <histedit.h>
#include <limits.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// libedit edits wide characters. A byte that is no UTF-8 is one of the last private plane's, as in SystemPath.
enum { BYTE_PLANE = 0x10FF00 };

struct cle_editor {
    EditLine *edit;
    HistoryW *history;
    int input;
    FILE *screen;
    cle_complete complete;
    const char *prompt;
    int is_interrupted;
    int has_paste_mode;
    // Characters that were read and not yet taken.
    wchar_t waiting[MB_LEN_MAX];
    int waiting_count;
};

// What the signals' handler writes and the reading thread looks at: 'c' for SIGCONT, 'w' for SIGWINCH.
static int signal_pipe[2] = {-1, -1};
// The descriptor of a terminal that marks pastes; -1 for none.
static atomic_int paste_screen = -1;

// MARK: Characters

static size_t encode(wchar_t character, char *bytes) {
    const uint32_t c = (uint32_t)character;
    if (c >= BYTE_PLANE + 0x80 && c <= BYTE_PLANE + 0xFF) return bytes[0] = (char)c, 1;
    if (c < 0x80) return bytes[0] = (char)c, 1;
    const int count = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (int i = 0; i < count; i++) {
        const uint32_t bits = c >> 6 * (count - 1 - i);
        bytes[i] = (char)(i > 0 ? 0x80 | (bits & 0x3F) : (0xF0 << (4 - count) & 0xFF) | bits);
    }
    return (size_t)count;
}

static char *bytes_of(const wchar_t *text, size_t count) {
    char *bytes = malloc(count * 4 + 1), *end = bytes;
    if (bytes == NULL) return NULL;
    for (size_t i = 0; i < count; i++) end += encode(text[i], end);
    *end = 0;
    return bytes;
}

// Decodes one character. Bytes that are none are delivered one by one. Returns how many bytes it takes.
static size_t decode(const char *bytes, size_t count, wchar_t *character) {
    mbstate_t state;
    memset(&state, 0, sizeof state);
    const size_t used = mbrtowc(character, bytes, count, &state);
    const int is_character = used != (size_t)-1 && used != (size_t)-2 && used > 0;
    if (is_character && (*character & ~0xFF) != BYTE_PLANE) return used;
    const unsigned char byte = (unsigned char)bytes[0];
    *character = byte < 0x80 ? byte : BYTE_PLANE + byte;
    return 1;
}

static wchar_t *characters_of(const char *bytes) {
    size_t left = strlen(bytes), count = 0;
    wchar_t *text = malloc((left + 1) * sizeof *text);
    if (text == NULL) return NULL;
    while (left > 0) {
        const size_t used = decode(bytes, left, &text[count++]);
        bytes += used;
        left -= used;
    }
    text[count] = 0;
    return text;
}

// MARK: The terminal

static void note_signal(int number) {
    const int code = errno;
    const char byte = number == SIGCONT ? 'c' : 'w';
    if (write(signal_pipe[1], &byte, 1) < 0) { /* Full of signals that are still to be looked at. */ }
    errno = code;
}

static int watch_signals(void) {
    if (signal_pipe[0] >= 0) return 0;
    if (pipe(signal_pipe) != 0) return -1;
    for (int i = 0; i < 2; i++) {
        fcntl(signal_pipe[i], F_SETFD, FD_CLOEXEC);
        fcntl(signal_pipe[i], F_SETFL, O_NONBLOCK);
    }
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = note_signal;
    action.sa_flags = SA_RESTART;
    sigaction(SIGCONT, &action, NULL);
    sigaction(SIGWINCH, &action, NULL);
    return 0;
}

static void set_paste_mode(cle_editor *e, int on) {
    if (!e->has_paste_mode) return;
    fputs(on ? "\033[?2004h" : "\033[?2004l", e->screen);
    fflush(e->screen);
    atomic_store(&paste_screen, on ? fileno(e->screen) : -1);
}

void cle_abandon(void) {
    const int screen = atomic_exchange(&paste_screen, -1);
    static const char end[] = "\033[?2004l\r\n";
    if (screen >= 0 && write(screen, end, sizeof end - 1) < 0) { /* The terminal is gone. */ }
}

static void begin_editing(cle_editor *e) {
    el_set(e->edit, EL_PREP_TERM, 1);
    set_paste_mode(e, 1);
}

static void end_editing(cle_editor *e) {
    set_paste_mode(e, 0);
    el_set(e->edit, EL_PREP_TERM, 0);
}

// Shows the line from the start of the row that the cursor is in.
static void show_again(cle_editor *e) {
    fputs("\r", e->screen);
    el_set(e->edit, EL_REFRESH);
}

static void handle_signals(cle_editor *e) {
    char byte;
    int continued = 0, resized = 0;
    while (read(signal_pipe[0], &byte, 1) == 1) *(byte == 'c' ? &continued : &resized) = 1;
    if (resized) el_resize(e->edit);
    if (continued) {
        // The shell has set the terminal up for itself meanwhile.
        el_set(e->edit, EL_PREP_TERM, 0);
        begin_editing(e);
    }
    if (resized || continued) show_again(e);
}

// MARK: Reading

static cle_editor *editor_of(EditLine *edit) {
    void *editor = NULL;
    el_get(edit, EL_CLIENTDATA, &editor);
    return editor;
}

static int next_byte(cle_editor *e, char *byte) {
    struct pollfd from[2] = {{e->input, POLLIN, 0}, {signal_pipe[0], POLLIN, 0}};
    for (;;) {
        if (poll(from, 2, -1) < 0) {
            if (errno != EINTR) return -1;
            from[0].revents = 0;
        }
        handle_signals(e);
        if (from[0].revents == 0) continue;
        const ssize_t count = read(e->input, byte, 1);
        if (count >= 0) return (int)count;
        if (errno != EINTR && errno != EAGAIN) return -1;
    }
}

static int next_character(EditLine *edit, wchar_t *character) {
    cle_editor *e = editor_of(edit);
    if (e->waiting_count == 0) {
        char bytes[MB_LEN_MAX];
        size_t count = 0, position = 0, result = (size_t)-2;
        mbstate_t state;
        memset(&state, 0, sizeof state);
        while (result == (size_t)-2 && count < MB_LEN_MAX) {
            const int got = next_byte(e, &bytes[count]);
            if (got <= 0 && count == 0) return got;
            if (got <= 0) break;
            wchar_t decoded;
            result = mbrtowc(&decoded, &bytes[count++], 1, &state);
        }
        while (position < count) position += decode(bytes + position, count - position, &e->waiting[e->waiting_count++]);
    }
    *character = e->waiting[0];
    e->waiting_count--;
    memmove(e->waiting, e->waiting + 1, sizeof *e->waiting * (size_t)e->waiting_count);
    return 1;
}

static char *prompt_of(EditLine *edit) { return (char *)editor_of(edit)->prompt; }

// MARK: Keys

// The cursor goes to the end of the line, so that what is written next does not come into the middle of it.
static unsigned char interrupt(EditLine *edit, int key) {
    (void)key;
    const LineInfoW *line = el_wline(edit);
    el_cursor(edit, (int)(line->lastchar - line->cursor));
    el_wpush(edit, L"\033[998~");
    return CC_CURSOR;
}

static unsigned char end_interrupted(EditLine *edit, int key) {
    (void)key;
    editor_of(edit)->is_interrupted = 1;
    return CC_NEWLINE;
}

static unsigned char pass_on(cle_editor *e, int number) {
    end_editing(e);
    fputs("\n", e->screen);
    fflush(e->screen);
    kill(0, number);
    // The system does not stop a group that nobody could continue: then no SIGCONT comes.
    struct pollfd from = {signal_pipe[0], POLLIN, 0};
    if (poll(&from, 1, 500) > 0) {
        handle_signals(e);
    } else {
        begin_editing(e);
        show_again(e);
    }
    return CC_NORM;
}

static unsigned char suspend(EditLine *edit, int key) {
    (void)key;
    return pass_on(editor_of(edit), SIGTSTP);
}

static unsigned char quit(EditLine *edit, int key) {
    (void)key;
    return pass_on(editor_of(edit), SIGQUIT);
}

// What the terminal sends between the marks of a paste, as one text. Line breaks at its end would only leave the cursor on an empty row.
static unsigned char paste(EditLine *edit, int key) {
    (void)key;
    static const wchar_t end[] = L"\033[201~";
    const size_t end_count = sizeof end / sizeof *end - 1;
    wchar_t *text = NULL, character;
    size_t count = 0, room = 0;
    while (el_wgetc(edit, &character) == 1) {
        if (count + 1 >= room) {
            room = room == 0 ? 1024 : room * 2;
            wchar_t *larger = realloc(text, room * sizeof *text);
            if (larger == NULL) break;
            text = larger;
        }
        if (character == L'\n' && count > 0 && text[count - 1] == L'\r') count--;
        if (character != 0) text[count++] = character;
        if (count >= end_count && wmemcmp(text + count - end_count, end, end_count) == 0) {
            count -= end_count;
            break;
        }
    }
    if (text == NULL) return CC_NORM;
    // Of control characters, only line breaks and tabs are text.
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        const wchar_t c = text[i] == L'\r' ? L'\n' : text[i];
        if (c == L'\n' || c == L'\t' || (c >= 0x20 && c != 0x7F)) text[kept++] = c;
    }
    count = kept;
    while (count > 0 && text[count - 1] == L'\n') count--;
    text[count] = 0;
    const int is_refused = count > 0 && el_winsertstr(edit, text) < 0;
    free(text);
    return is_refused ? CC_REFRESH_BEEP : CC_REFRESH;
}

static unsigned char complete(EditLine *edit, int key) {
    (void)key;
    cle_editor *e = editor_of(edit);
    const LineInfoW *line = el_wline(edit);
    char *before = bytes_of(line->buffer, (size_t)(line->cursor - line->buffer)), *choices = NULL;
    char *insertion = before == NULL ? NULL : e->complete(before, &choices);
    wchar_t *text = insertion == NULL ? NULL : characters_of(insertion);
    unsigned char result = CC_ERROR;
    if (text != NULL && text[0] != 0) {
        result = el_winsertstr(edit, text) < 0 ? CC_ERROR : CC_REFRESH;
    } else if (choices != NULL) {
        fprintf(e->screen, "\n%s\n", choices);
        show_again(e);
        result = CC_NORM;
    }
    free(before);
    free(choices);
    free(insertion);
    free(text);
    return result;
}

// MARK: The editor

cle_editor *cle_create(int input, int output, int history_limit, cle_complete complete_line) {
    // In the C locale, in which a program starts, no character beyond ASCII can be typed.
    if (setlocale(LC_CTYPE, "") == NULL || MB_CUR_MAX == 1) setlocale(LC_CTYPE, "C.UTF-8");
    cle_editor *e = calloc(1, sizeof *e);
    if (e == NULL || watch_signals() != 0) return free(e), NULL;
    e->input = input;
    e->complete = complete_line;
    e->prompt = "";
    FILE *keyboard = fdopen(dup(input), "r");
    e->screen = fdopen(dup(output), "w");
    if (keyboard == NULL || e->screen == NULL) return NULL;
    const char *terminal = getenv("TERM");
    e->has_paste_mode = terminal != NULL && terminal[0] != 0 && strcmp(terminal, "dumb") != 0;
    e->edit = el_init("adallava", keyboard, e->screen, e->screen);
    e->history = history_winit();
    if (e->edit == NULL || e->history == NULL) return NULL;
    HistEventW event;
    history_w(e->history, &event, H_SETSIZE, history_limit);
    history_w(e->history, &event, H_SETUNIQUE, 1);
    el_set(e->edit, EL_CLIENTDATA, e);
    el_set(e->edit, EL_PROMPT, prompt_of);
    el_set(e->edit, EL_EDITOR, "emacs");
    el_wset(e->edit, EL_HIST, history_w, e->history);
    el_wset(e->edit, EL_GETCFN, next_character);
    // Ctrl-C, Ctrl-Z and Ctrl-\ come as characters, so that none of them arrives while the line is being changed; and the line breaks of a
    // paste as they are.
    el_set(e->edit, EL_SETTY, "-d", "-isig", "-icrnl", "-inlcr", NULL);
    const struct { const char *name, *key; unsigned char (*action)(EditLine *, int); } bindings[] = {
        {"adallava-interrupt", "^C", interrupt}, {"adallava-end-interrupted", "\\e[998~", end_interrupted},
        {"adallava-suspend", "^Z", suspend},     {"adallava-quit", "\\034", quit},
        {"adallava-paste", "\\e[200~", paste},   {"adallava-complete", "^I", complete},
    };
    for (size_t i = 0; i < sizeof bindings / sizeof *bindings; i++) {
        el_set(e->edit, EL_ADDFN, bindings[i].name, "", bindings[i].action);
        el_set(e->edit, EL_BIND, bindings[i].key, bindings[i].name, NULL);
    }
    el_set(e->edit, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_source(e->edit, NULL);
    return e;
}

cle_result cle_read(cle_editor *e, const char *prompt, char **line) {
    // Signals since the last line leave nothing to be shown again.
    char byte;
    int resized = 0;
    while (read(signal_pipe[0], &byte, 1) == 1) resized |= byte == 'w';
    if (resized) el_resize(e->edit);
    e->prompt = prompt;
    e->is_interrupted = 0;
    *line = NULL;
    int count = 0;
    // With these blocked, as a runtime's threads have them, a process in the background would change the terminal instead of being stopped.
    sigset_t stops, before;
    sigemptyset(&stops);
    const int numbers[] = {SIGTSTP, SIGTTIN, SIGTTOU, SIGCONT};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) sigaddset(&stops, numbers[i]);
    pthread_sigmask(SIG_UNBLOCK, &stops, &before);
    // libedit would show the prompt first, and what is typed meanwhile would be read and echoed as outside of an editor.
    begin_editing(e);
    const wchar_t *text = el_wgets(e->edit, &count);
    set_paste_mode(e, 0);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (e->is_interrupted) {
        fputs("^C\n", e->screen);
        fflush(e->screen);
    } else if (text == NULL || count <= 0) {
        return CLE_END;
    }
    if (text == NULL || count < 0) count = 0;
    if (count > 0 && text[count - 1] == L'\n') count--;
    *line = bytes_of(text, (size_t)count);
    return *line == NULL ? CLE_END : e->is_interrupted ? CLE_INTERRUPTED : CLE_LINE;
}

void cle_remember(cle_editor *e, const char *line) {
    wchar_t *text = characters_of(line);
    HistEventW event;
    if (text != NULL) history_w(e->history, &event, H_ENTER, text);
    free(text);
}
