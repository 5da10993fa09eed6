#include <attend/tasks/translator.h>

#include <attend/core/error.h>
#include <attend/core/threads.h>
#include <attend/tasks/translation_batch.h>
#include <attend/tasks/translation_folder.h>
#include <attend/tasks/translation_search.h>
#include <attend/text/sentences.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <utility>

namespace attend {

namespace {

constexpr const char* kOperation = "Translator";
constexpr std::int64_t kMostSourceTokens = std::int64_t{1} << 20;

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

/// @throws ValueError naming `what`, where its other bytes are
void check_utf8(const std::string& what, const std::string& text) {
    const std::size_t valid = text::valid_utf8(text);
    if (valid == text.size()) return;
    throw ValueError(kOperation,
                     "expected UTF-8, found other bytes in " + what + " from byte " + std::to_string(valid) + " on");
}

/// Line breaks, which a piece may hold, as spaces: a line's translation is a line.
std::string without_breaks(std::string text) {
    for (char& c : text) {
        if (c == '\n' || c == '\r') c = ' ';
    }
    return text;
}

std::vector<text::TextRange> moved(std::vector<text::TextRange> ranges, std::int64_t by) {
    for (text::TextRange& range : ranges) range = {range.begin + by, range.end + by};
    return ranges;
}

void append_links(std::vector<AlignmentLink>& all, const std::vector<AlignmentLink>& more, std::size_t source,
                  std::size_t target) {
    for (const AlignmentLink& link : more) {
        all.push_back({link.source + static_cast<std::int64_t>(source), link.target + static_cast<std::int64_t>(target),
                       link.weight});
    }
}

/// Appends what was found for the next part of a source. @param source_begin where the part begins in the source
void append(Translation& all, const Translation& next, const std::string& between, std::int64_t source_begin) {
    all.text += between;
    append_links(all.tokens, next.tokens, all.source_ids.size(), all.ids.size());
    append_links(all.words.links, next.words.links, all.words.source.size(), all.words.target.size());
    const auto add = [](auto& to, const auto& from) { to.insert(to.end(), from.begin(), from.end()); };
    add(all.words.source, moved(next.words.source, source_begin));
    add(all.words.target, moved(next.words.target, static_cast<std::int64_t>(all.text.size())));
    add(all.ids, next.ids);
    add(all.source_ids, next.source_ids);
    add(all.attention, next.attention);
    all.text += next.text;
    all.log_probability += next.log_probability;
    all.score += next.score;
}

/// The best `count` choices of one translation for each part, by the sum of their scores: the n best of a sum are among
/// the n best of its first terms with the n best of the next.
std::vector<std::vector<std::size_t>> best_choices(const std::vector<std::vector<Translation>>& parts,
                                                   std::size_t count) {
    struct Choice {
        double score = 0.0;
        std::vector<std::size_t> of_part;
    };
    std::vector<Choice> best(1);
    for (const std::vector<Translation>& part : parts) {
        std::vector<Choice> longer;
        for (const Choice& choice : best) {
            for (std::size_t i = 0; i < part.size(); ++i) {
                longer.push_back({choice.score + part[i].score, choice.of_part});
                longer.back().of_part.push_back(i);
            }
        }
        std::stable_sort(longer.begin(), longer.end(),
                         [](const Choice& a, const Choice& b) { return a.score > b.score; });
        if (longer.size() > count) longer.resize(count);
        best = std::move(longer);
    }
    std::vector<std::vector<std::size_t>> result;
    result.reserve(best.size());
    for (Choice& choice : best) result.push_back(std::move(choice.of_part));
    return result;
}

/// Where a part begins in its source.
struct PartBegin {
    std::int64_t place = 0;  ///< bytes before it
    bool apart = true;       ///< whether it is a word's beginning
};

/// Parts one after the other, with spaces between them, but for a word that was cut.
Translation joined(const std::vector<std::vector<Translation>>& parts, const std::vector<PartBegin>& begins,
                   const std::string& prefix, const std::string& suffix, std::int64_t n_best) {
    Translation result;
    const auto choices = best_choices(parts, static_cast<std::size_t>(n_best));
    // A search whose options leave no token to take has found nothing, which is no sure thing.
    if (choices.empty()) result.score = -std::numeric_limits<double>::infinity();
    for (std::size_t c = 0; c < choices.size(); ++c) {
        Translation one;
        one.text = prefix;
        for (std::size_t p = 0; p < parts.size(); ++p) {
            append(one, parts[p][choices[c][p]], p > 0 && begins[p].apart ? " " : "", begins[p].place);
        }
        one.text += suffix;
        if (!parts.empty()) one.score /= static_cast<double>(parts.size());
        if (c == 0) {
            result = std::move(one);
        } else {
            result.others.push_back(std::move(one));
        }
    }
    return result;
}

/// A translation and its others as a list, best first.
std::vector<Translation> as_list(Translation translation) {
    std::vector<Translation> others = std::move(translation.others);
    translation.others.clear();
    others.insert(others.begin(), std::move(translation));
    return others;
}

/// Whether a piece goes on with the word of the piece before it. (Scripts that do not put spaces between words have no
/// such pieces.)
bool inside_word(const text::Tokenizer& tokenizer, std::int64_t id) {
    const std::string piece = tokenizer.piece(id);
    return !piece.empty() && static_cast<unsigned char>(piece.front()) < 0x80;
}

/// Where a part of at most `most` pieces ends: before a word, where one begins in its second half.
std::size_t part_end(const text::Tokenizer& tokenizer, const std::vector<std::int64_t>& ids, std::size_t begin,
                     std::size_t most) {
    if (ids.size() - begin <= most) return ids.size();
    for (std::size_t end = begin + most; end > begin + most / 2; --end) {
        if (tokenizer.piece(ids[end]).starts_with("\u2581")) return end;
    }
    return begin + most;
}

/// Batches of sequences of similar lengths, up to a number of tokens.
std::vector<std::span<TranslationSequence*>> batches_of(std::vector<TranslationSequence*>& order, std::int64_t most) {
    std::stable_sort(order.begin(), order.end(), [](const TranslationSequence* a, const TranslationSequence* b) {
        return a->ids.size() < b->ids.size();
    });
    std::vector<std::span<TranslationSequence*>> batches;
    for (std::size_t begin = 0; begin < order.size();) {
        std::size_t last = begin;
        std::int64_t tokens = 0;
        while (last < order.size()) {
            tokens += static_cast<std::int64_t>(order[last]->ids.size());
            if (last > begin && tokens > most) break;
            ++last;
        }
        batches.push_back(std::span(order).subspan(begin, last - begin));
        begin = last;
    }
    return batches;
}

}  // namespace

namespace {

/// Where a source's pieces and words are in it.
struct SourceWords {
    std::vector<text::TextRange> pieces = {};
    std::vector<text::TextRange> words = {};
};

}  // namespace

struct Translator::Parts {
    TranslationFolder folder;

    TranslationBatchOptions batch_options(const TranslationOptions& options) const;
    std::int64_t language_mark(const TranslationOptions& options) const;
    std::vector<TranslationSequence> sequences(const std::vector<std::string>& sources,
                                               const std::vector<std::int64_t>& marks,
                                               const TranslationOptions& options) const;
    std::vector<Translation> found(const TranslationSequence& sequence, const TranslationOptions& options,
                                   const SourceWords& source) const;
    void align(const TranslationSequence& sequence, const TensorView& weights, const SourceWords& source,
               Translation& translation) const;
    SourceWords source_words(const std::string& text) const;
};

TranslationBatchOptions Translator::Parts::batch_options(const TranslationOptions& options) const {
    TranslationBatchOptions batch;
    TranslationSearch found = translation_search(folder, options);
    batch.search = std::move(found.make);
    batch.follows_one = found.follows_one;
    batch.start = folder.generation ? folder.generation->start : -1;
    batch.n_best = options.n_best.value_or(folder.n_best);
    batch.all_weights = options.attention;
    batch.alignment_weights = options.alignment;
    batch.shortlist = folder.shortlist ? &*folder.shortlist : nullptr;
    batch.shared_vocabulary = folder.shared;
    batch.model = folder.path;
    const std::int64_t positions = folder.model.source_positions().value_or(kMostSourceTokens);
    if (options.max_source_tokens.value_or(2) > positions) {
        throw ValueError(kOperation, "expected a max_source_tokens of at most " + std::to_string(positions) +
                                         ", the rows of 'model.encoder.embed_positions.weight' of '" + folder.path +
                                         "', found " + std::to_string(*options.max_source_tokens));
    }
    if (batch.n_best < 1 || batch.n_best > found.most) {
        const std::string whose = options.n_best ? "" : ", which is 'num_return_sequences' of '" + folder.path + "'";
        throw ValueError(kOperation, "expected n_best from 1 to the size of the beam, " + std::to_string(found.most) +
                                         ", found " + std::to_string(batch.n_best) + whose);
    }
    return batch;
}

/// That of options.target_language, or -1. @throws ValueError for a language that the model does not know
std::int64_t Translator::Parts::language_mark(const TranslationOptions& options) const {
    if (!options.target_language) return -1;
    const std::string mark = ">>" + *options.target_language + "<<";
    const std::int64_t id = folder.source.find(mark);
    if (id >= 0) return id;
    throw ValueError(kOperation,
                     "expected a target_language whose mark the vocabulary has, found none for '" + mark + "'");
}

/// @param marks of each source's language, or -1: each part of it begins with one
std::vector<TranslationSequence> Translator::Parts::sequences(const std::vector<std::string>& sources,
                                                              const std::vector<std::int64_t>& marks,
                                                              const TranslationOptions& options) const {
    std::vector<TranslationSequence> all;
    const auto longest = static_cast<std::size_t>(options.max_source_tokens.value_or(folder.max_source_tokens));
    for (std::size_t s = 0; s < sources.size(); ++s) {
        const std::vector<std::int64_t> ids = folder.source.encode(sources[s]);
        const std::int64_t own = folder.source.language_mark(sources[s]);
        const std::int64_t mark = own >= 0 ? own : marks[s];
        const std::size_t most = std::max<std::size_t>(longest - 1, mark >= 0 ? 2 : 1);  // the mark and one piece
        for (std::size_t begin = 0; begin < ids.size();) {
            TranslationSequence sequence;
            sequence.source = s;
            sequence.begin = begin;
            sequence.given = mark >= 0 && (own < 0 || begin > 0) ? 1 : 0;
            sequence.ids.assign(sequence.given, mark);
            sequence.cuts_word = begin > 0 && inside_word(folder.source, ids[begin]);
            const std::size_t end = part_end(folder.source, ids, begin, most - sequence.given);
            sequence.ids.insert(sequence.ids.end(), ids.begin() + static_cast<std::ptrdiff_t>(begin),
                                ids.begin() + static_cast<std::ptrdiff_t>(end));
            sequence.ids.push_back(folder.source.end());
            all.push_back(std::move(sequence));
            begin = end;
        }
    }
    return all;
}

std::vector<Translation> Translator::Parts::found(const TranslationSequence& sequence,
                                                  const TranslationOptions& options, const SourceWords& source) const {
    std::vector<Translation> all;
    for (const search::Hypothesis& hypothesis : sequence.hypotheses) {
        Translation translation;
        translation.ids = hypothesis.tokens;
        translation.log_probability = hypothesis.log_probability;
        translation.score = hypothesis.score;
        std::span<const std::int64_t> ids = translation.ids;
        if (!ids.empty() && ids.back() == folder.target.end()) ids = ids.first(ids.size() - 1);
        translation.text = without_breaks(folder.target.decode(ids));
        if (options.alignment || (options.attention && all.empty())) {
            Tensor weights = cross_weights(sequence, hypothesis);
            // Marian learns alignments in the first head of one layer.
            if (options.alignment) {
                const std::int64_t block = options.attention ? folder.model.alignment_block() : 0;
                align(sequence, weights.view().select(0, block).select(0, 0), source, translation);
            }
            if (options.attention && all.empty()) {
                TranslationAttention attention;
                for (const std::int64_t id : sequence.ids) attention.source_tokens.push_back(folder.source.piece(id));
                for (const std::int64_t id : hypothesis.tokens) {
                    attention.target_tokens.push_back(folder.target.piece(id));
                }
                for (std::size_t t = 0; t < hypothesis.tokens.size(); ++t) {
                    const std::int64_t start = folder.generation ? folder.generation->start : -1;
                    const std::int64_t id = t == 0 ? start : hypothesis.tokens[t - 1];
                    attention.decoder_tokens.push_back(id < 0 ? "" : folder.target.piece(id));
                }
                attention.encoder = sequence.encoder_weights;
                attention.decoder = decoder_weights(sequence, hypothesis);
                attention.cross = std::move(weights);
                translation.attention.push_back(std::move(attention));
            }
        }
        all.push_back(std::move(translation));
    }
    return all;
}

SourceWords Translator::Parts::source_words(const std::string& text) const {
    return {folder.source.encode_with_ranges(text).ranges, text::words(text, folder.source_language)};
}

// Links count the words of the whole source: a word may lie in two parts. Only those of this part are looked at, or a
// source of many parts would take the square of its length.
void Translator::Parts::align(const TranslationSequence& sequence, const TensorView& weights, const SourceWords& source,
                              Translation& translation) const {
    translation.source_ids = sequence.ids;
    translation.tokens = strong_links(weights);
    std::vector<text::TextRange> pieces(sequence.given);  // of no word
    const auto first = source.pieces.begin() + static_cast<std::ptrdiff_t>(sequence.begin);
    pieces.insert(pieces.end(), first, first + static_cast<std::ptrdiff_t>(sequence.ids.size() - 1 - sequence.given));
    const std::vector<text::TextRange> targets = folder.target.decode_with_ranges(translation.ids).ranges;
    translation.words.target = text::words(translation.text, folder.target_language);
    const std::span<const text::TextRange> all = source.words;
    std::size_t begin = 0;
    std::size_t end = 0;
    if (first != source.pieces.end() && pieces.size() > static_cast<std::size_t>(sequence.given)) {
        const std::int64_t from = first->begin;
        const std::int64_t to = pieces.back().end;
        const auto before = [&](const text::TextRange& word) { return word.end <= from; };
        const auto within = [&](const text::TextRange& word) { return word.begin < to; };
        begin = static_cast<std::size_t>(std::partition_point(all.begin(), all.end(), before) - all.begin());
        end = static_cast<std::size_t>(std::partition_point(all.begin(), all.end(), within) - all.begin());
    }
    const auto part = all.subspan(begin, std::max(begin, end) - begin);
    translation.words.links = strong_links(word_weights(weights, pieces, targets, part, translation.words.target));
    for (AlignmentLink& link : translation.words.links) link.source += static_cast<std::int64_t>(begin);
}

Translator::Translator(std::shared_ptr<const Parts> parts) : parts_(std::move(parts)) {}

Translator Translator::from_pretrained(const std::string& folder, const TranslatorOptions& options) {
    return Translator(
        std::make_shared<const Parts>(Parts{open_translation_folder(folder, options.compute_type, options.shortlist)}));
}

std::vector<std::int64_t> Translator::encode(const std::string& source) const {
    std::vector<std::int64_t> ids = parts_->folder.source.encode(source);
    ids.push_back(parts_->folder.source.end());
    return ids;
}

SearchFamily Translator::search_family() const noexcept {
    return parts_->folder.generation ? SearchFamily::transformers : SearchFamily::marian;
}

std::vector<Translation> Translator::translate(const std::vector<std::string>& sources,
                                               const TranslationOptions& options) const {
    return translate_marked(sources, std::vector<std::int64_t>(sources.size(), -1), options);
}

std::vector<Translation> Translator::translate_marked(const std::vector<std::string>& sources,
                                                      const std::vector<std::int64_t>& marks,
                                                      const TranslationOptions& options) const {
    check_utf8("target_prefix", options.target_prefix);
    for (std::size_t s = 0; s < sources.size(); ++s) check_utf8("source " + std::to_string(s), sources[s]);
    std::vector<std::int64_t> own = marks;
    const std::int64_t asked = parts_->language_mark(options);
    for (std::int64_t& mark : own) mark = mark >= 0 ? mark : asked;
    const TranslationBatchOptions batch_options = parts_->batch_options(options);
    std::vector<TranslationSequence> sequences = parts_->sequences(sources, own, options);
    std::vector<TranslationSequence*> order;
    for (TranslationSequence& sequence : sequences) order.push_back(&sequence);
    const std::vector<std::span<TranslationSequence*>> batches = batches_of(order, options.batch_tokens);
    const nn::EncoderDecoder& model = parts_->folder.model;
    if (batches.size() == 1) {
        translate_batch(model, batches.front(), batch_options);  // with all threads
    } else {
        // Long ones first, so that threads end together.
        parallel_for(static_cast<std::int64_t>(batches.size()), [&](std::int64_t task) {
            translate_batch(model, batches[batches.size() - 1 - static_cast<std::size_t>(task)], batch_options);
        });
    }
    std::vector<Translation> result(sources.size());
    std::size_t begin = 0;
    for (std::size_t s = 0; s < sources.size(); ++s) {
        const SourceWords source = options.alignment ? parts_->source_words(sources[s]) : SourceWords();
        std::vector<std::vector<Translation>> parts;
        std::vector<PartBegin> begins;
        for (; begin < sequences.size() && sequences[begin].source == s; ++begin) {
            parts.push_back(parts_->found(sequences[begin], options, source));
            begins.push_back({.place = 0, .apart = !sequences[begin].cuts_word});
        }
        if (!parts.empty()) result[s] = joined(parts, begins, "", "", batch_options.n_best);
        result[s].words.source = source.words;
        for (Translation& other : result[s].others) other.words.source = source.words;
    }
    return result;
}

TranslatedLines Translator::translate_lines(const std::vector<std::string>& lines, bool split,
                                            const TranslationOptions& options) const {
    TranslatedLines result;
    std::vector<text::Line> taken;
    std::vector<std::string> sentences;
    std::vector<std::int64_t> marks;
    for (std::size_t i = 0; i < lines.size(); ++i) {
        taken.push_back(text::split_line(lines[i], parts_->folder.source_language, split));
        if (taken.back().repaired) result.repaired.push_back(i);
        sentences.insert(sentences.end(), taken.back().sentences.begin(), taken.back().sentences.end());
        const std::vector<std::string>& own = taken.back().sentences;
        marks.resize(sentences.size(), own.empty() ? -1 : parts_->folder.source.language_mark(own.front()));
        result.words += words_of(lines[i]);
    }
    std::vector<Translation> translated = translate_marked(sentences, marks, options);
    const std::int64_t best = options.n_best.value_or(n_best());
    std::size_t next = 0;
    for (text::Line& line : taken) {
        std::vector<std::vector<Translation>> parts;
        std::vector<PartBegin> begins;
        for (const text::TextRange& range : line.ranges) {
            parts.push_back(as_list(std::move(translated[next++])));
            begins.push_back({.place = range.begin});
        }
        result.lines.push_back(joined(parts, begins, line.prefix, line.suffix, best));
        result.sources.push_back(std::move(line.text));
    }
    return result;
}

TranslatedLines Translator::stream_line(const std::string& line, bool split, const TranslationOptions& options,
                                        const std::function<void(const std::string&)>& write) const {
    check_utf8("target_prefix", options.target_prefix);
    const TranslationFolder& folder = parts_->folder;
    text::Line taken = text::split_line(line, folder.source_language, split);
    TranslatedLines result;
    if (taken.repaired) result.repaired.push_back(0);
    result.words = words_of(line);
    const std::int64_t asked = parts_->language_mark(options);
    const std::int64_t own = taken.sentences.empty() ? -1 : folder.source.language_mark(taken.sentences.front());
    TranslationBatchOptions batch_options = parts_->batch_options(options);
    std::vector<std::int64_t> ids;  // of the sequence so far
    std::size_t told = 0;           // bytes of its text
    const auto on_token = [&](const TranslationSequence&, std::int64_t token) {
        ids.push_back(token);
        // The last word may grow, or be spelled otherwise with its next piece.
        const std::string text = without_breaks(folder.target.decode(ids));
        // Nor are spaces told before what they stand before: joining words may take them away.
        const std::size_t end = text.find_last_not_of(' ', text.rfind(' ')) + 1;
        if (text.rfind(' ') == std::string::npos || end <= told) return;
        write(text.substr(told, end - told));
        told = end;
    };
    if (batch_options.follows_one) batch_options.on_token = on_token;
    if (!taken.prefix.empty()) write(taken.prefix);
    std::vector<std::vector<Translation>> sentences;
    std::vector<PartBegin> places;
    for (std::size_t s = 0; s < taken.sentences.size(); ++s) {
        const std::string& sentence = taken.sentences[s];
        if (s > 0) write(" ");
        const SourceWords words = options.alignment ? parts_->source_words(sentence) : SourceWords();
        std::vector<std::vector<Translation>> parts;
        std::vector<PartBegin> begins;
        for (TranslationSequence& sequence : parts_->sequences({sentence}, {own >= 0 ? own : asked}, options)) {
            begins.push_back({.place = 0, .apart = !sequence.cuts_word});
            if (begins.size() > 1 && begins.back().apart) write(" ");
            ids.clear();
            told = 0;
            TranslationSequence* one = &sequence;
            translate_batch(folder.model, std::span(&one, 1), batch_options);
            parts.push_back(parts_->found(sequence, options, words));
            if (parts.back().empty()) continue;
            const std::string& text = parts.back().front().text;
            if (told < text.size()) write(text.substr(told));
        }
        Translation whole = parts.empty() ? Translation() : joined(parts, begins, "", "", batch_options.n_best);
        whole.words.source = words.words;
        for (Translation& other : whole.others) other.words.source = words.words;
        sentences.push_back(as_list(std::move(whole)));
        places.push_back({.place = taken.ranges[s].begin});
    }
    if (!taken.suffix.empty()) write(taken.suffix);
    result.lines.push_back(joined(sentences, places, taken.prefix, taken.suffix, batch_options.n_best));
    result.sources.push_back(std::move(taken.text));
    return result;
}

std::vector<std::string> Translator::pieces(const std::vector<std::int64_t>& ids) const {
    std::vector<std::string> result;
    for (const std::int64_t id : ids) result.push_back(parts_->folder.target.piece(id));
    return result;
}

std::vector<std::string> Translator::source_pieces(const std::vector<std::int64_t>& ids) const {
    std::vector<std::string> result;
    for (const std::int64_t id : ids) result.push_back(parts_->folder.source.piece(id));
    return result;
}

const std::string& Translator::source_language() const noexcept {
    return parts_->folder.source_language;
}

const std::string& Translator::target_language() const noexcept {
    return parts_->folder.target_language;
}

std::int64_t Translator::n_best() const noexcept {
    return parts_->folder.n_best;
}

const nn::EncoderDecoder& Translator::model() const noexcept {
    return parts_->folder.model;
}

}  // namespace attend
