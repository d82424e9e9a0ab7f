import AdaLLaVA
import Foundation

/// Requests as they come to a server, drawn from distributions that were published of production traces.
///
/// Text prompts and answers are lognormal around the medians of Azure's conversations, 1020 and 129 tokens (Splitwise: Patel et al., ISCA 2024), scaled to the
/// model's context; a prompt about an image has the image's positions and a short question. Requests come in bursts: gaps between them are of a gamma
/// distribution with the coefficient of variation that BurstGPT (Wang et al., 2024) shows for conversations. Keys ask at unequal rates.
package struct SloTrace: Sendable, Equatable {
    /// One request.
    package struct Request: Sendable, Equatable {
        /// When it comes, as a share of the trace at a load of 1, and which key asks.
        package var arrival: Double
        package var key: Int
        /// Tokens of its text, images, and tokens of its answer.
        package var prompt: Int, images: Int, answer: Int
        /// The deadline over the time that the request takes by itself at the full budget; `nil` for bulk work.
        package var deadlineFactor: Double?
    }

    /// Tokens of Azure's median conversation.
    static let medianPrompt = 1020.0, medianAnswer = 129.0
    /// Deviations of the logarithms, and the coefficient of variation of the gaps.
    static let promptSpread = 1.0, answerSpread = 0.8, burstiness = 1.5
    /// Share of requests about images, where the model sees, and tokens of a question about one; share of interactive requests.
    static let imageShare = 0.5, questionTokens = 8 ... 40, interactiveShare = 0.7
    /// Rates of the keys.
    static let keyShares = [0.55, 0.15, 0.15, 0.15]
    static let deadlineFactors = 1.0 ... 4.0

    package let requests: [Request]

    /// - Parameters:
    ///   - context: positions that prompt and answer may take.
    ///   - imageTokens: positions of an image; `nil` for models without a tower.
    ///   - scale: factor of lengths; `nil` makes the median conversation an eighth of the context at most.
    package init(count: Int, context: Int, imageTokens: Int?, scale: Double? = nil, seed: UInt64) {
        var random = SplitMix64(seed: seed)
        let fitting = min(1, Double(context) / 8 / (SloTrace.medianPrompt + SloTrace.medianAnswer)), scale = scale ?? fitting
        var time = 0.0, made: [Request] = []
        for _ in 0 ..< max(count, 1) {
            time += SloTrace.gap(&random)
            let hasImage = imageTokens != nil && random.unit() < SloTrace.imageShare
            var request = Request(arrival: time, key: 0, prompt: 0, images: hasImage ? 1 : 0, answer: 0)
            let lengths = SloTrace.questionTokens
            let drawn = exp(SloTrace.promptSpread * SloTrace.normal(&random)) * SloTrace.medianPrompt * scale
            let question = lengths.lowerBound + random.index(below: lengths.count)
            let answer = exp(SloTrace.answerSpread * SloTrace.normal(&random)) * SloTrace.medianAnswer * scale
            // Positions that remain after the image, the latency token and one more.
            let room = context - 2 - (hasImage ? imageTokens ?? 0 : 0)
            request.answer = max(1, min(Int(answer.rounded()), context / 4, room - 1))
            request.prompt = max(1, min(hasImage ? question : Int(drawn.rounded()), room - request.answer))
            var place = random.unit()
            request.key = SloTrace.keyShares.firstIndex { share in
                place -= share
                return place < 0
            } ?? 0
            let factors = SloTrace.deadlineFactors
            let factor = factors.lowerBound + (factors.upperBound - factors.lowerBound) * random.unit()
            request.deadlineFactor = random.unit() < SloTrace.interactiveShare ? factor : nil
            made.append(request)
        }
        requests = made.map { request in
            var request = request
            request.arrival /= max(time, 1e-9)
            return request
        }
    }

    /// A gap of a gamma distribution with mean 1 (Marsaglia and Tsang, 2000).
    private static func gap(_ random: inout SplitMix64) -> Double {
        let shape = 1 / (burstiness * burstiness)
        // Of a shape below 1: one above it, times a power of a uniform draw.
        let d = shape + 1 - 1.0 / 3, c = 1 / (9 * d).squareRoot()
        while true {
            let x = normal(&random), v = pow(1 + c * x, 3), u = random.unit()
            if v > 0, log(max(u, 1e-300)) < 0.5 * x * x + d - d * v + d * log(v) { return d * v * pow(random.unit(), 1 / shape) / shape }
        }
    }

    /// A draw of the normal distribution (Box and Muller, 1958).
    private static func normal(_ random: inout SplitMix64) -> Double {
        (-2 * log(1 - random.unit())).squareRoot() * cos(2 * .pi * random.unit())
    }
}

/// The time of a request alone, fitted to some that were measured: linear in text, images, answer, and text times answer.
struct IsolatedTimes: Sendable {
    private let coefficients: [Double]

    static func terms(_ request: SloTrace.Request, imageTokens: Int) -> [Double] {
        let positions = Double(request.prompt + request.images * imageTokens), answer = Double(request.answer)
        return [1, positions, Double(request.images), answer, (positions + answer / 2) * answer]
    }

    /// - Parameter seconds: of each request.
    init(_ requests: [SloTrace.Request], seconds: [Double], imageTokens: Int) {
        let rows = zip(requests, seconds).map { request, time in IsolatedTimes.terms(request, imageTokens: imageTokens).map { $0 / max(time, 1e-9) } }
        coefficients = NonNegativeLeastSquares.solve(rows, seconds.map { _ in 1 })
    }

    func seconds(_ request: SloTrace.Request, imageTokens: Int) -> Double {
        zip(coefficients, IsolatedTimes.terms(request, imageTokens: imageTokens)).reduce(0) { $0 + $1.0 * $1.1 }
    }
}
