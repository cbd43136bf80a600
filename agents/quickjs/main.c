/* A JavaScript program as an agent: evaluates standard input with QuickJS-ng.
 *
 * `cargo xtask quickjs` compiles this with the engine's public C source. The script's world is
 * the language itself, print(...) which writes a line to standard output, and scriptArgs, the
 * arguments of the agent. Exit code 1 after an exception that nobody caught, 2 where the script cannot
 * be read. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quickjs.h"

static char *read_all(FILE *file, size_t *length)
{
    size_t room = 1 << 16, have = 0;
    char *text = malloc(room + 1);
    while (text != NULL) {
        have += fread(text + have, 1, room - have, file);
        if (have < room)
            break;
        char *larger = realloc(text, room * 2 + 1);
        if (larger == NULL)
            free(text);
        text = larger;
        room *= 2;
    }
    if (text != NULL && ferror(file)) {
        free(text);
        text = NULL;
    }
    if (text != NULL)
        text[have] = '\0'; /* JS_Eval asks for it. */
    *length = have;
    return text;
}

static JSValue print(JSContext *context, JSValueConst this_value, int count, JSValueConst *values)
{
    (void)this_value;
    for (int i = 0; i < count; i++) {
        size_t length;
        const char *text = JS_ToCStringLen(context, &length, values[i]);
        if (text == NULL)
            return JS_EXCEPTION;
        if (i > 0)
            putchar(' ');
        fwrite(text, 1, length, stdout);
        JS_FreeCString(context, text);
    }
    putchar('\n');
    fflush(stdout);
    return JS_UNDEFINED;
}

static void report(JSContext *context)
{
    JSValue exception = JS_GetException(context);
    const char *text = JS_ToCString(context, exception);
    fprintf(stderr, "%s\n", text != NULL ? text : "an exception without text");
    JS_FreeCString(context, text);
    JSValue stack = JS_GetPropertyStr(context, exception, "stack");
    const char *trace = JS_IsString(stack) ? JS_ToCString(context, stack) : NULL;
    if (trace != NULL)
        fputs(trace, stderr);
    JS_FreeCString(context, trace);
    JS_FreeValue(context, stack);
    JS_FreeValue(context, exception);
}

static void add_globals(JSContext *context, int argc, char **argv)
{
    JSValue global = JS_GetGlobalObject(context);
    JS_SetPropertyStr(context, global, "print", JS_NewCFunction(context, print, "print", 1));
    JSValue arguments = JS_NewArray(context);
    for (int i = 1; i < argc; i++)
        JS_SetPropertyUint32(context, arguments, (uint32_t)(i - 1), JS_NewString(context, argv[i]));
    JS_SetPropertyStr(context, global, "scriptArgs", arguments);
    JS_FreeValue(context, global);
}

/* Runs what promises have put off. */
static int run_jobs(JSRuntime *runtime)
{
    JSContext *context;
    int done;
    while ((done = JS_ExecutePendingJob(runtime, &context)) > 0)
        ;
    if (done < 0)
        report(context);
    return done;
}

int main(int argc, char **argv)
{
    size_t length;
    char *script = read_all(stdin, &length);
    JSRuntime *runtime = JS_NewRuntime();
    JSContext *context = runtime != NULL ? JS_NewContext(runtime) : NULL;
    if (script == NULL || context == NULL) {
        fputs("no script on standard input, or no memory\n", stderr);
        return 2;
    }
    add_globals(context, argc, argv);
    JSValue result = JS_Eval(context, script, length, "<stdin>", JS_EVAL_TYPE_GLOBAL);
    int failed = JS_IsException(result);
    if (failed)
        report(context);
    JS_FreeValue(context, result);
    if (run_jobs(runtime) < 0)
        failed = 1;
    JS_FreeContext(context);
    JS_FreeRuntime(runtime);
    free(script);
    return failed;
}
