import AdaLLaVA
import Foundation

/// `/v1/loads`, in the form that vLLM's and SGLang's gateways read.
struct LoadReport: Encodable {
    struct Rank: Encodable {
        let dpRank = 0
        let numRunningReqs: Int
        let numWaitingReqs: Int
        /// Positions of prompts that are still to be read, of requests that wait or are computed.
        let numWaitingUncachedTokens: Int
        let numTotalReqs: Int
        let numUsedTokens: Int
        let maxTotalNumTokens: Int
        let tokenUsage: Double
        let genThroughput: Double
        let cacheHitRate: Double
        let utilization: Double
        let maxRunningRequests: Int
    }

    let timestamp: String
    let dpRankCount = 1
    let loads: [Rank]

    init(_ load: ModelLoad, _ admission: Admission, _ metrics: Metrics) {
        timestamp = Date().ISO8601Format()
        let counts = admission.counts, rates = metrics.rates
        let perToken = max(load.keyValueBytesPerToken, 1)
        loads = [
            Rank(
                numRunningReqs: counts.running, numWaitingReqs: counts.waiting,
                numWaitingUncachedTokens: admission.backlog.reduce(load.unreadPositions) { $0 + $1.positions }, numTotalReqs: counts.running + counts.waiting,
                numUsedTokens: load.keyValueBytes / perToken, maxTotalNumTokens: load.keyValueLimit / perToken,
                tokenUsage: load.keyValueLimit > 0 ? Double(load.keyValueBytes) / Double(load.keyValueLimit) : 0,
                genThroughput: rates.tokensPerSecond, cacheHitRate: rates.cacheHits,
                utilization: min(Double(counts.running) / Double(admission.limit), 1), maxRunningRequests: admission.limit)
        ]
    }
}
