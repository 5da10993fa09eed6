#include <attend/core/error.h>
#include <attend/core/threads.h>
#include <attend/io/marian_shortlist.h>
#include <attend/kernels/cpu/row_kernels.h>
#include <attend/tasks/translator.h>
#include <attend/text/sentences.h>
#include <attend/text/tokenizer.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <numeric>
#include <optional>
#include <span>
#include <utility>

namespace attend {

namespace {

constexpr const char* kOperation = "Translator";

/// The one file of a folder whose name has this beginning and end; nothing where there is none.
std::optional<std::string> file_named(const std::string& folder, const std::string& begin, const std::string& end) {
    std::optional<std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        const std::string name = entry.path().filename().string();
        if (!name.starts_with(begin) || !name.ends_with(end)) continue;
        if (found) {
            throw FileError(kOperation, "expected one file " + begin + "*" + end + " in '" + folder + "', found '" +
                                            *found + "' and '" + entry.path().string() + "'");
        }
        found = entry.path().string();
    }
    return found;
}

std::string required_file(const std::string& folder, const std::string& begin, const std::string& end) {
    if (const std::optional<std::string> found = file_named(folder, begin, end)) return *found;
    throw FileError(kOperation, "expected a file " + begin + "*" + end + " in '" + folder + "', found none");
}

/// @throws FileError where a vocabulary has pieces without a row of weights, or none for the end of a sentence
void check_vocabulary(const text::Tokenizer& pieces, const std::string& file, std::int64_t rows,
                      const std::string& tensor, const std::string& model) {
    if (pieces.size() > rows) {
        throw FileError(kOperation, "expected at most " + std::to_string(rows) + " pieces, the rows of '" + tensor +
                                        "' in '" + model + "', in '" + file + "', found " +
                                        std::to_string(pieces.size()));
    }
    if (pieces.end() < 0) {
        throw FileError(kOperation, "expected a piece for the end of a sentence in '" + file + "', found none");
    }
}

/// A source, or a part of one that is too long, on its way through the decoder.
struct Piece {
    std::size_t source = 0;            // which it belongs to
    std::vector<std::int64_t> ids;     // with the end
    std::vector<std::int64_t> output;  // so far
    double score = 0.0;
};

/// log(sum of exp) in double: the same for any number of threads.
double log_sum_exp(const float* logits, std::int64_t count) {
    double largest = -std::numeric_limits<double>::infinity();
    for (std::int64_t i = 0; i < count; ++i) largest = std::max(largest, static_cast<double>(logits[i]));
    double sum = 0.0;
    for (std::int64_t i = 0; i < count; ++i) sum += std::exp(static_cast<double>(logits[i]) - largest);
    return largest + std::log(sum);
}

}  // namespace

namespace {

/// "en" of ".../model.enpt.intgemm.alphas.bin".
std::string language_of(const std::string& path) {
    const std::string name = std::filesystem::path(path).filename().string();
    const std::size_t dot = name.find('.');
    const std::size_t next = dot == std::string::npos ? dot : name.find('.', dot + 1);
    return next == std::string::npos || next - dot != 5 ? "" : name.substr(dot + 1, 2);
}

std::int64_t words_of(const std::string& text) {
    std::int64_t words = 0;
    bool inside = false;
    for (const char c : text) {
        const bool space = c == ' ' || c == '\t' || c == '\r';
        words += !space && !inside ? 1 : 0;
        inside = !space;
    }
    return words;
}

}  // namespace

struct Translator::Parts {
    nn::EncoderDecoder model;
    text::Tokenizer source;
    text::Tokenizer target;
    std::optional<MarianShortlist> shortlist;
    bool shared = true;
    std::string source_language;

    /// The output layer for one sentence and the ids of its columns; all columns: no ids.
    struct Output {
        std::optional<nn::Linear> some;
        std::vector<std::int64_t> ids;
    };

    Output output_for(const Piece& piece) const {
        Output output;
        if (!shortlist) return output;
        output.ids = shortlist->candidates(piece.ids, shared, model.target_size());
        output.some = model.output().select(output.ids);
        return output;
    }

    void decode(std::span<Piece*> batch, const TranslationOptions& options) const;
};

// Greedy: the likeliest piece but for the unknown one, until the end of the sentence or its longest length.
void Translator::Parts::decode(std::span<Piece*> batch, const TranslationOptions& options) const {
    std::vector<std::int64_t> ids;
    std::vector<std::int64_t> starts = {0};
    std::vector<Output> outputs;
    for (const Piece* piece : batch) {
        ids.insert(ids.end(), piece->ids.begin(), piece->ids.end());
        starts.push_back(static_cast<std::int64_t>(ids.size()));
        outputs.push_back(output_for(*piece));
    }
    nn::DecoderState state = model.start(model.encode(ids, starts), starts);
    std::vector<std::size_t> active(batch.size());
    std::iota(active.begin(), active.end(), std::size_t{0});
    std::vector<std::int64_t> previous(batch.size(), -1);
    const std::int64_t end = target.end();
    while (!active.empty()) {
        const Tensor rows = model.step(state, previous);
        std::vector<std::int64_t> going;
        std::vector<std::int64_t> last;
        std::vector<std::size_t> left;
        for (std::size_t i = 0; i < active.size(); ++i) {
            Piece& piece = *batch[active[i]];
            const Output& output = outputs[active[i]];
            const auto row = static_cast<std::int64_t>(i);
            Tensor logits = (output.some ? *output.some : model.output()).forward(rows.view().slice(1, row, row + 1));
            float* values = logits.data<float>();
            const std::int64_t count = logits.numel();
            const auto unknown = std::lower_bound(output.ids.begin(), output.ids.end(), target.unknown());
            if (!output.some) {
                values[target.unknown()] = -std::numeric_limits<float>::infinity();
            } else if (unknown != output.ids.end() && *unknown == target.unknown()) {
                values[unknown - output.ids.begin()] = -std::numeric_limits<float>::infinity();
            }
            const std::int64_t best = kernels::cpu::row_kernels().largest(values, count);
            const std::int64_t id = output.some ? output.ids[static_cast<std::size_t>(best)] : best;
            piece.output.push_back(id);
            if (options.scores) piece.score += static_cast<double>(values[best]) - log_sum_exp(values, count);
            const double longest = std::ceil(options.max_length_factor * static_cast<double>(piece.ids.size()));
            if (id == end || !(static_cast<double>(piece.output.size()) < longest)) continue;
            going.push_back(row);
            last.push_back(id);
            left.push_back(active[i]);
        }
        if (left.size() < active.size() && !left.empty()) model.keep(state, going);
        active = std::move(left);
        previous = std::move(last);
    }
}

Translator::Translator(std::shared_ptr<const Parts> parts) : parts_(std::move(parts)) {}

Translator Translator::from_pretrained(const std::string& folder, const TranslatorOptions& options) {
    if (!std::filesystem::is_directory(folder)) {
        throw FileError(kOperation, "expected a folder with a model, found none at '" + folder + "'");
    }
    const std::string path = required_file(folder, "model", ".bin");
    auto file = std::make_shared<const MarianFile>(MarianFile::open(path));
    const bool shared = models::has_shared_vocabulary(*file);
    const std::string source = required_file(folder, shared ? "vocab" : "srcvocab", ".spm");
    const text::Tokenizer source_pieces = text::Tokenizer::open(source);
    const std::string target = shared ? source : required_file(folder, "trgvocab", ".spm");
    const text::Tokenizer target_pieces = shared ? source_pieces : text::Tokenizer::open(target);
    std::optional<std::string> lexical;
    if (options.shortlist) lexical = file_named(folder, "lex", ".bin");
    std::optional<MarianShortlist> shortlist;
    if (lexical) shortlist = MarianShortlist::open(*lexical);
    nn::EncoderDecoder model = models::load_marian(file, options.compute_type);
    file->drop_pages();  // its weights are packed now; embeddings are read again row by row
    check_vocabulary(source_pieces, source, model.source_size(), shared ? "Wemb" : "encoder_Wemb", path);
    if (!shared) check_vocabulary(target_pieces, target, model.target_size(), "decoder_Wemb", path);
    if (shortlist &&
        (shortlist->source_size() < source_pieces.size() || shortlist->source_size() > model.source_size())) {
        throw FileError(kOperation, "expected a shortlist of the " + std::to_string(source_pieces.size()) +
                                        " pieces of '" + source + "' in '" + *lexical + "', found one of " +
                                        std::to_string(shortlist->source_size()));
    }
    return Translator(std::make_shared<const Parts>(
        Parts{std::move(model), source_pieces, target_pieces, std::move(shortlist), shared, language_of(path)}));
}

std::vector<std::int64_t> Translator::encode(const std::string& source) const {
    std::vector<std::int64_t> ids = parts_->source.encode(source);
    ids.push_back(parts_->source.end());
    return ids;
}

TranslatedLines Translator::translate_lines(const std::vector<std::string>& lines, bool split,
                                            const TranslationOptions& options) const {
    TranslatedLines result;
    std::vector<text::Line> taken;
    std::vector<std::string> sentences;
    for (std::size_t i = 0; i < lines.size(); ++i) {
        taken.push_back(text::split_line(lines[i], parts_->source_language, split));
        if (taken.back().repaired) result.repaired.push_back(i);
        sentences.insert(sentences.end(), taken.back().sentences.begin(), taken.back().sentences.end());
        result.words += words_of(lines[i]);
    }
    const std::vector<Translation> translated = translate(sentences, options);
    std::size_t next = 0;
    for (const text::Line& line : taken) {
        Translation joined;
        joined.text = line.prefix;
        for (std::size_t s = 0; s < line.sentences.size(); ++s) {
            const Translation& sentence = translated[next++];
            if (s > 0) joined.text += ' ';
            joined.text += sentence.text;
            joined.ids.insert(joined.ids.end(), sentence.ids.begin(), sentence.ids.end());
            joined.score += sentence.score;
        }
        joined.text += line.suffix;
        result.lines.push_back(std::move(joined));
    }
    return result;
}

std::vector<std::string> Translator::pieces(const std::vector<std::int64_t>& ids) const {
    std::vector<std::string> result;
    for (const std::int64_t id : ids) result.push_back(parts_->target.piece(id));
    return result;
}

const std::string& Translator::source_language() const noexcept {
    return parts_->source_language;
}

const nn::EncoderDecoder& Translator::model() const noexcept {
    return parts_->model;
}

std::vector<Translation> Translator::translate(const std::vector<std::string>& sources,
                                               const TranslationOptions& options) const {
    std::vector<Piece> pieces;
    const std::size_t most = static_cast<std::size_t>(std::max<std::int64_t>(options.max_source_tokens, 2)) - 1;
    for (std::size_t s = 0; s < sources.size(); ++s) {
        const std::vector<std::int64_t> ids = parts_->source.encode(sources[s]);
        for (std::size_t begin = 0; begin < ids.size(); begin += most) {
            const std::size_t last = std::min(ids.size(), begin + most);
            Piece piece;
            piece.source = s;
            piece.ids.assign(ids.begin() + static_cast<std::ptrdiff_t>(begin),
                             ids.begin() + static_cast<std::ptrdiff_t>(last));
            piece.ids.push_back(parts_->source.end());
            pieces.push_back(std::move(piece));
        }
    }
    std::vector<Piece*> order;
    for (Piece& piece : pieces) order.push_back(&piece);
    std::stable_sort(order.begin(), order.end(),
                     [](const Piece* a, const Piece* b) { return a->ids.size() < b->ids.size(); });
    std::vector<std::span<Piece*>> batches;
    for (std::size_t begin = 0; begin < order.size();) {
        std::size_t last = begin;
        std::int64_t tokens = 0;
        while (last < order.size()) {
            tokens += static_cast<std::int64_t>(order[last]->ids.size());
            if (last > begin && tokens > options.batch_tokens) break;
            ++last;
        }
        batches.push_back(std::span(order).subspan(begin, last - begin));
        begin = last;
    }
    if (batches.size() == 1) {
        parts_->decode(batches.front(), options);  // with all threads
    } else {
        // Long ones first, so that threads end together.
        parallel_for(static_cast<std::int64_t>(batches.size()), [&](std::int64_t task) {
            parts_->decode(batches[batches.size() - 1 - static_cast<std::size_t>(task)], options);
        });
    }
    std::vector<Translation> result(sources.size());
    for (const Piece& piece : pieces) {
        Translation& translation = result[piece.source];
        std::vector<std::int64_t> text_ids = piece.output;
        if (!text_ids.empty() && text_ids.back() == parts_->target.end()) text_ids.pop_back();
        if (!translation.ids.empty()) translation.text += ' ';
        translation.text += parts_->target.decode(text_ids);
        translation.ids.insert(translation.ids.end(), piece.output.begin(), piece.output.end());
        translation.score += piece.score;
    }
    return result;
}

}  // namespace attend
