// Translation with a model of Firefox Translations, as Mozilla publishes it, or a folder of OPUS-MT:
//
//     example_10_translation models/en-pt "Hello world."
#include <attend/core/error.h>
#include <attend/tasks/translator.h>

#include <cstdio>
#include <string>
#include <vector>

int main(int argc, char** argv) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: example_10_translation FOLDER [LINE]...\n");
        return 2;
    }
    try {
        const attend::Translator translator = attend::Translator::from_pretrained(argv[1]);
        std::vector<std::string> lines(argv + 2, argv + argc);
        if (lines.empty()) lines = {"Hello world. How are you?", "  - a list keeps its marker"};

        // Sentences of all lines are worked on together; each has the same bits as alone.
        const attend::TranslatedLines translated = translator.translate_lines(lines, true, {.scores = true});
        for (const attend::Translation& line : translated.lines) {
            std::printf("%s\n    score %.3f, pieces:", line.text.c_str(), line.score);
            for (const std::string& piece : translator.pieces(line.ids)) std::printf(" %s", piece.c_str());
            std::printf("\n");
        }

        // Who waits sees words as they are found.
        translator.stream_line(lines.front(), true, {}, [](const std::string& text) {
            std::fputs(text.c_str(), stdout);
            std::fflush(stdout);
        });
        std::printf("\n");
    } catch (const attend::Error& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
